package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// Reader returns the content of a file. Load and Parse call it for the configuration and for each CA file once.
type Reader func(path string) ([]byte, error)

// patience is how long a pipe may stay without a writer: one that is to come does so as soon as there is a reader.
var patience = 2 * time.Second

var errNobodyWrites = errors.New("it is a pipe that nobody writes to")

// ReadFile is the Reader for everyday use: os.ReadFile that stops soon after the size that is refused anyhow, and that
// waits for who writes to a pipe, however long it takes, but not for ever where there is nobody.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		if err != nil || len(data) > 0 || info.Mode()&fs.ModeNamedPipe == 0 {
			return data, err
		}
		if time.Since(start) > patience {
			return nil, errNobodyWrites
		}
	}
}
