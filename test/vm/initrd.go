//go:build linux

package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// initScript is the guest's first process.
const initScript = `#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -o remount,noatime / # busybox on armhf cannot stat what was read after 2038
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
exec >/dev/console 2>&1 </dev/null
for m in /lib/*.ko; do insmod "$m"; done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
sh -e /script
guest exit $?
`

// pack writes the machine's first and only file system, an initramfs.
func (m Machine) pack(t *testing.T, cache, file string) error {
	t.Helper()
	helper, err := m.Arch.build(t, "ntsclient/test/vm/guest")
	if err != nil {
		return err
	}
	client, err := m.Arch.client(t)
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(filepath.Join(cache, "busybox"))
	if err != nil {
		return err
	}
	files := []File{
		{"bin", Dir, nil},
		{"dev", Dir, nil},
		{"etc", Dir, nil},
		{"lib", Dir, nil},
		{"proc", Dir, nil},
		{"run", Dir, nil},
		{"sys", Dir, nil},
		{"tmp", 0o41777, nil},
		{"var", Dir, nil},
		{"var/lib", Dir, nil},
		{"init", Program, []byte(initScript)},
		{"script", Plain, []byte(m.Script)},
		{"bin/busybox", Program, busybox},
		{"bin/guest", Program, helper},
		{"bin/ntsclient", Program, client},
		{"etc/machine-id", Plain, []byte("0123456789abcdef0123456789abcdef\n")},
		{"etc/passwd", Plain, []byte("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")},
	}
	modules, err := filepath.Glob(filepath.Join(cache, "*.ko"))
	if err != nil {
		return err
	}
	for _, name := range modules {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		files = append(files, File{"lib/" + filepath.Base(name), Plain, content})
	}
	return os.WriteFile(file, cpio(append(files, m.Files...)), 0o600)
}

// cpio makes an archive in the format that the kernel unpacks: newc, see its
// Documentation/driver-api/early-userspace/buffer-format.rst.
func cpio(files []File) []byte {
	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	for i, f := range append(files, File{Path: "TRAILER!!!"}) {
		// inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			i+1, f.Mode, 0, 0, 1, 0, len(f.Content), 0, 0, 0, 0, len(f.Path)+1, 0, f.Path)
		pad()
		b.Write(f.Content)
		pad()
	}
	return b.Bytes()
}
