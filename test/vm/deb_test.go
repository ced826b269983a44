//go:build linux && vm

package vm

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ntsclient/test/vm/oracle"
)

// debianInit installs the package on the disk, as on a machine that is being
// set up, then lets the administrator configure it, and starts systemd.
const debianInit = `#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1 </dev/null
for m in /lib/*.ko; do insmod "$m"; done
mkdir /new
mount -t ext4 /dev/vda /new || { echo "no disk"; guest exit 1; }
mount -o bind /dev /new/dev
mount -t proc proc /new/proc
cp /bin/guest /new/usr/local/bin/
cp -a /disk/. /new/
cp /etc/ca.pem /new/etc/
in_debian() { chroot /new /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" || { echo "failed: $*"; guest exit 1; }; }
in_debian systemctl enable -q after.service script.service
in_debian sh /root/list >/new/root/before
in_debian dpkg -i /root/ntsclient.deb
cp /etc/ntsclient.toml /new/etc/
umount /new/proc /new/dev
exec switch_root /new /sbin/init
`

// What the package could leave behind: files, but for those that every boot
// makes, accounts, and packages.
const debianList = `find /etc /usr /var/lib /var/spool -xdev ! -path '/var/lib/dpkg/*' ! -path '/var/lib/systemd/*' ! -path '/var/lib/dbus/*' | sort
cut -d: -f1 /etc/passwd /etc/group /etc/shadow | sort
dpkg-query -W -f '${Package}\n' | sort
`

const debianUnits = `[Unit]
Description=needs the right time
After=time-sync.target
[Service]
Type=oneshot
Environment=ORACLE=%s
ExecStart=/usr/local/bin/guest run after true
[Install]
WantedBy=multi-user.target
`

const debianScriptUnit = `[Unit]
Description=the script of the test
After=multi-user.target after.service systemd-time-wait-sync.service
DefaultDependencies=no
[Service]
Type=oneshot
Environment=ORACLE=%s HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/sh /root/script
ExecStopPost=/usr/local/bin/guest exit 1
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
`

const debianScript = `started() { systemctl show -P ExecMainStartTimestampMonotonic ntsclient-sync.service; }
guest run boot true
guest run wait-sync systemctl is-active systemd-time-wait-sync.service
guest run timedatectl timedatectl show
guest run failed systemctl list-units --failed --plain --no-legend
guest run service systemctl show -p User,Result,ExecMainStatus,ConditionResult ntsclient-sync.service
guest run timer systemctl is-active ntsclient-sync.timer
guest run journal journalctl -b --no-pager -o short-monotonic
guest run state stat -c '%U %G %a %n' /var/lib/ntsclient /var/lib/ntsclient/state.json
guest run replaced dpkg-query -W -f '${db:Status-Status}' systemd-timesyncd

guest run status -uid 65534 ntsclient status
guest run check ntsclient check

timedatectl set-ntp false
guest run off systemctl is-active ntsclient-sync.timer
timedatectl set-ntp true
guest run on systemctl is-active ntsclient-sync.timer
systemctl start ntsclient-sync.service

before=$(started)
/usr/lib/networkd-dispatcher/routable.d/20-ntsclient
systemctl start ntsclient-sync.service
guest run dispatched test "$(started)" -gt "$before"

echo '# the administrator was here' >>/etc/ntsclient.toml
guest run upgrade dpkg -i /root/ntsclient.deb
guest run kept grep -c 'the administrator was here' /etc/ntsclient.toml
guest run still systemctl is-active ntsclient-sync.timer
systemctl start ntsclient-sync.service
guest run warm ntsclient sync --json

guest shift 5000
mount --bind /var/lib /var/lib
mount -o remount,bind,ro /var/lib
guest run read-only systemctl start ntsclient-sync.service
umount /var/lib
guest shift 5000
mount -t tmpfs -o size=16k,mode=711,uid=ntsclient,gid=ntsclient none /var/lib/ntsclient
dd if=/dev/zero of=/var/lib/ntsclient/fill bs=4k 2>/dev/null || true
guest run full systemctl start ntsclient-sync.service
umount /var/lib/ntsclient
guest run last journalctl -b --no-pager -o short-monotonic -u ntsclient-sync

guest run purge dpkg --purge ntsclient
sh /root/list >/root/after
guest run left sh -c 'diff /root/before /root/after | grep "^>"'
guest run nobodys find / -xdev -nouser -o -xdev -nogroup
guest run gone systemctl list-unit-files --no-legend 'ntsclient*'
guest run no-ntp timedatectl show -p CanNTP --value
guest exit 0
`

// The package is installed by dpkg into a Debian 12 that boots with systemd and
// without a clock: the clock is right before whatever waits for the time
// starts, others are told, and a purge leaves nothing behind.
func TestDebianPackage(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("takes minutes: set LONG=1")
	}
	need(t, AMD64)
	disk := debianDisk(t)
	n := serve(t, "", "", "", "", "")
	m := Machine{Arch: AMD64, RTC: epoch, Script: "", Files: append(n.files, []File{
		{"init", Program, []byte(debianInit)},
		{"disk", Dir, nil},
		{"disk/root", Dir, nil},
		{"disk/etc", Dir, nil},
		{"disk/etc/systemd", Dir, nil},
		{"disk/etc/systemd/system", Dir, nil},
		{"disk/root/ntsclient.deb", Plain, debianPackage(t)},
		{"disk/root/list", Plain, []byte(debianList)},
		{"disk/root/script", Plain, []byte(debianScript)},
		{"disk/etc/systemd/system/after.service", Plain, []byte(strings.ReplaceAll(debianUnits, "%s", AMD64.oracle))},
		{"disk/etc/systemd/system/script.service", Plain, []byte(strings.ReplaceAll(debianScriptUnit, "%s", AMD64.oracle))},
	}...)}
	r := bootDebian(t, m, disk)

	right(t, r["boot"])
	if after := r["after"]; after.Before.Abs() >= oracle.Near {
		t.Errorf("a unit after time-sync.target started with a clock that was off by %v", after.Before)
	}
	for name, want := range map[string]string{
		"wait-sync": "active\n", "failed": "", "timer": "active\n", "replaced": "config-files",
		"off": "inactive\n", "on": "active\n", "kept": "1\n", "still": "active\n",
		"left": "", "nobodys": "", "gone": "", "no-ntp": "no\n",
	} {
		if got := r[name].Stdout; got != want {
			t.Errorf("%s: %q, not %q\n%s", name, got, want, r[name].Stderr)
		}
	}
	for name, lines := range map[string]string{
		"timedatectl": "CanNTP=yes NTP=yes NTPSynchronized=yes LocalRTC=no",
		"service":     "User=ntsclient Result=success ExecMainStatus=0 ConditionResult=yes",
	} {
		for _, line := range strings.Fields(lines) {
			if !strings.Contains("\n"+r[name].Stdout, "\n"+line+"\n") {
				t.Errorf("%s: no %s in\n%s", name, line, r[name].Stdout)
			}
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(r["state"].Stdout), "\n") {
		if !strings.HasPrefix(line, "ntsclient ntsclient 711 ") && !strings.HasPrefix(line, "ntsclient ntsclient 600 ") {
			t.Errorf("state: %s", line)
		}
	}
	for _, name := range []string{"read-only", "full"} {
		right(t, r[name])
		if r[name].Before.Abs() < time.Second {
			t.Errorf("%s: the clock was right before", name)
		}
	}
	for _, name := range []string{"status", "check", "dispatched", "upgrade", "read-only", "full", "purge"} {
		if r[name].Exit != 0 {
			t.Errorf("%s: exit %d\n%s%s", name, r[name].Exit, r[name].Stdout, r[name].Stderr)
		}
	}
	if strings.Contains(r["journal"].Stdout, "ordering cycle") {
		t.Error("systemd found an ordering cycle")
	}
	for _, warned := range regexp.MustCompile(`ntsclient\[\d+\]: level=.*`).FindAllString(r["journal"].Stdout, -1) {
		// The daemon that was replaced is still linked to from /etc, to nowhere.
		if !strings.Contains(warned, "systemd-timesyncd is enabled") {
			t.Errorf("at boot it warned: %s", warned)
		}
	}
	warm := report(t, r["warm"], 0)
	warm.keyExchange(t, false)
	right(t, r["warm"])
	for _, name := range []string{"upgrade", "purge"} {
		t.Logf("%s: %v", name, r[name].Took)
	}
	if t.Failed() {
		t.Logf("journal:\n%s\n%s", r["journal"].Stdout, r["last"].Stdout)
	}
}

// debianDisk is the image that test/vm/debian made.
func debianDisk(t *testing.T) string {
	t.Helper()
	cache, err := AMD64.Cache()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "debian.version")); err == nil {
		return filepath.Join(cache, "debian.ext4")
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no Debian to boot: run test/vm/debian")
	}
	t.Skip("no Debian to boot: run test/vm/debian, as root")
	return ""
}

// debianPackage builds the package.
func debianPackage(t *testing.T) []byte {
	t.Helper()
	dist := t.TempDir()
	c := exec.Command("make", "-s", "-C", "../..", "deb-amd64")
	c.Env = append(os.Environ(), "DIST="+dist)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("make deb-amd64: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dist, "*_amd64.deb"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v\n%s", files, err, out)
	}
	deb, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return deb
}

// bootDebian is Run for a machine with a disk, which stays as it is.
func bootDebian(t *testing.T, m Machine, disk string) map[string]oracle.Record {
	t.Helper()
	dir := t.TempDir()
	initrd, console := filepath.Join(dir, "initrd"), filepath.Join(dir, "console")
	cache, err := m.Arch.Cache()
	if err == nil {
		err = m.pack(t, cache, initrd)
	}
	if err != nil {
		t.Fatal(err)
	}
	command := m.qemu(filepath.Join(cache, "kernel"), initrd, console)
	command[len(command)-1] += " net.ifnames=0 systemd.show_status=0"
	command = append(command, "-m", "512",
		"-drive", "file="+disk+",format=raw,if=none,id=disk,snapshot=on,cache=unsafe", "-device", "virtio-blk-pci,drive=disk")
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	records, exit, err := attend(ctx, command)
	named := map[string]oracle.Record{}
	for _, r := range records {
		named[r.Name] = r
	}
	if err != nil || exit != 0 {
		said, _ := os.ReadFile(console)
		all, _ := json.MarshalIndent(records, "", " ")
		t.Fatalf("the guest's script: exit %d, %v (%v)\n%s\n%s", exit, err, ctx.Err(), said, all)
	}
	return named
}
