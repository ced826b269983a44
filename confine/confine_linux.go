package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (n Needs) apply() error {
	if err := onAllThreads("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err // with cgo, and before Linux 3.5
	}
	errs := []error{n.landlock()}
	owner := n.owner()
	if n.Bounding { // while there is the right to
		errs = append(errs, n.dropBounding())
	}
	if owner != nil {
		if err := become(owner); err != nil { // root then needs its rights to get at the state
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(append(errs, n.drop())...)
}

// onAllThreads does a system call on every thread. It must have the same result
// on each, as the Go runtime ends the process otherwise.
func onAllThreads(what string, call, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(call, a1, a2, a3); errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}

// The rights that Landlock knows of which change something
// (linux/landlock.h), by the version that brought them; and of these the ones
// needed to replace files, and to write to one.
const (
	changing = unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	changing2 = unix.LANDLOCK_ACCESS_FS_REFER
	changing3 = unix.LANDLOCK_ACCESS_FS_TRUNCATE

	toFile = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | changing3
	inDir  = toFile | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
)

// landlock leaves nothing to write but what is needed.
func (n Needs) landlock() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	handled := uint64(changing)
	if version >= 2 {
		handled |= changing2
	}
	if version >= 3 {
		handled |= changing3
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("landlock: making rules: %w", errno)
	}
	defer unix.Close(int(set))
	errs := []error{allow(set, os.DevNull, toFile&handled)}
	for _, dir := range append([]string{n.State}, n.Write...) {
		if dir != "" {
			errs = append(errs, allow(set, dir, inDir&handled))
		}
	}
	errs = append(errs, onAllThreads("landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0))
	return errors.Join(errs...)
}

// allow adds a rule: these rights hold for what is at or below path.
func allow(set uintptr, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("landlock: %s: %w", path, err)
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock: %s: %w", path, errno)
	}
	return nil
}

// owner is whom the state belongs to, where that is not us and we are root; nil
// otherwise.
func (n Needs) owner() *syscall.Stat_t {
	if n.State == "" || os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(n.State)
	if err != nil { // then nothing is kept
		return nil
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 {
		return st
	}
	return nil
}

// become makes root another user, with its capabilities.
func become(owner *syscall.Stat_t) error {
	if err := onAllThreads("keeping capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return err
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	err := syscall.Setgroups(nil)
	if err == nil {
		err = syscall.Setresgid(gid, gid, gid)
	}
	if err == nil {
		err = syscall.Setresuid(uid, uid, uid)
	}
	if err != nil {
		return fmt.Errorf("becoming user %d: %w", uid, err)
	}
	return nil
}

// kept are the capabilities that are needed.
func (n Needs) kept() uint64 {
	if n.SetClock {
		return 1 << unix.CAP_SYS_TIME
	}
	return 0
}

// drop gives up all capabilities but those needed.
func (n Needs) drop() error {
	have, err := capabilities()
	if err != nil {
		return err
	}
	return setCapabilities(have & n.kept())
}

// capabilities are those permitted.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// setCapabilities makes caps permitted and effective, and nothing inheritable
// or ambient (capabilities(7): what is not inheritable is not ambient).
func setCapabilities(caps uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(caps), uint32(caps>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	return onAllThreads("dropping capabilities", unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
}

// dropBounding drops all but those needed from the bounding set, where that is
// allowed.
func (n Needs) dropBounding() error {
	have, err := capabilities()
	if err != nil || have>>unix.CAP_SETPCAP&1 == 0 {
		return err
	}
	for c := uintptr(0); c < 64; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break // the kernel knows no more
		}
		if has == 0 || n.kept()>>c&1 != 0 {
			continue
		}
		if err := onAllThreads("dropping capabilities from the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); err != nil {
			return err
		}
	}
	return nil
}
