package timesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Two lock files. Whoever has the store open holds the first; a loop holds
// the second, too. That is a lock and not a word in the first, because a word
// would outlive a loop that is killed.
const (
	lockName = "lock"
	loopName = "lock.loop"
)

// lockPoll is how often a lock that is held is tried again: waiting for it in
// the kernel could not be ended by a context.
const lockPoll = 20 * time.Millisecond

// lock takes the store for this process alone.
func (s *Store) lock(ctx context.Context, loop bool) error {
	held := func() error {
		running, err := s.loopRuns()
		if err == nil && running {
			err = ErrLoopRunning
		}
		return err
	}
	if err := s.hold(ctx, lockName, held); err != nil {
		return err
	}
	if !loop {
		return nil
	}
	// Others may be looking whether a loop runs, which takes no time.
	return s.hold(ctx, loopName, func() error { return nil })
}

// hold takes one lock. Whenever it is held by another, held says whether to go
// on waiting.
func (s *Store) hold(ctx context.Context, name string, held func() error) error {
	for {
		f, ok, err := s.tryLock(name, false)
		if err != nil {
			return err
		}
		if ok {
			s.locks = append(s.locks, f)
			return nil
		}
		f.Close()
		if err := held(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another process has it open: %w", context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// loopRuns tells whether a loop holds the store.
func (s *Store) loopRuns() (bool, error) {
	f, free, err := s.tryLock(loopName, true)
	if err != nil {
		return false, err
	}
	f.Close()
	return !free, nil
}

// tryLock tries a lock, without waiting.
func (s *Store) tryLock(name string, shared bool) (f *os.File, ok bool, err error) {
	path := filepath.Join(s.dir, name)
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|carefully, 0o600)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s is not a regular file: remove it", path)
	}
	// Just made by root: for the directory's owner, too. What is not empty, or
	// has another name elsewhere, is none of ours, and is given to nobody.
	if s.owner != nil && ownerOf(info) != *s.owner && info.Size() == 0 && links(info) == 1 {
		if err := f.Chown(s.owner.uid, s.owner.gid); err != nil {
			return nil, false, err
		}
	}
	ok, err = flock(f, shared)
	if err != nil || !ok {
		return f, false, err
	}
	// The lock of a file that was removed meanwhile keeps nobody out.
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	return f, err == nil && os.SameFile(info, now), err
}
