package timesync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Peeked is what a state directory holds, as the next run will find it.
type Peeked struct {
	Agreed   *AgreedTime // the last one; nil: none
	Path     string      // of the file that it is in
	Servers  int         // of which a session is kept
	Unusable []string    // what of it cannot be used, and why
	SetAside time.Time   // when state was set aside for that; zero: never
}

// Peek looks into a state directory without a lock and changes nothing. An
// error means that no state can be kept there; fs.ErrNotExist, that the next run
// will have to make the directory.
func Peek(dir, machineID string) (*Peeked, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New(dir + " is no directory")
	}
	if err == nil {
		err = trustDir(info)
	}
	if err != nil {
		return nil, err
	}
	p := &Peeked{Path: filepath.Join(dir, stateName)}
	if aside, err := os.Lstat(p.Path + asideSuffix); err == nil {
		p.SetAside = aside.ModTime()
	}
	raw, err := readTrusted(p.Path, ownerOf(info))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	var saved *Saved
	if err == nil {
		saved, p.Unusable, err = decodeState(raw, machineKey(machineID))
	}
	if err != nil {
		p.Unusable = []string{err.Error()}
		return p, nil
	}
	p.Agreed = saved.Agreed
	for _, s := range saved.Servers {
		if s.Session != nil {
			p.Servers++
		}
	}
	return p, nil
}
