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

// The loop first, as installed; then the timer, for those who prefer that.
const debianScript = `log() { journalctl -b --no-pager -o short-monotonic "$@"; }
said() { for n in $(seq 30); do log -u ntsclient | grep -q "$1" && return; sleep 1; done; return 1; }
main() { systemctl show -P MainPID ntsclient.service; }
started() { systemctl show -P ExecMainStartTimestampMonotonic ntsclient-sync.service; }
guest run boot true
guest run waited systemctl is-active ntsclient-wait.service
guest run wait-sync systemctl is-active systemd-time-wait-sync.service
guest run timedatectl timedatectl show
guest run failed systemctl list-units --failed --plain --no-legend
guest run service systemctl show -p User,Type,ActiveState,StatusText,ConditionResult,NRestarts,WatchdogUSec ntsclient.service
guest run timer systemctl is-enabled ntsclient-sync.timer
guest run journal journalctl -b --no-pager -o short-monotonic
guest run state stat -c '%U %G %a %n' /var/lib/ntsclient /var/lib/ntsclient/state.json
guest run replaced dpkg-query -W -f '${db:Status-Status}' systemd-timesyncd

guest run status -uid 65534 ntsclient status --json
guest run check ntsclient check

before=$(main)
guest run reload systemctl reload ntsclient.service
said 'goes on with the configuration as it is now' && guest run reloaded true
echo typo >>/etc/ntsclient.toml
systemctl reload ntsclient.service
said 'the configuration is refused' && guest run refused true
sed -i '$d' /etc/ntsclient.toml
/usr/lib/networkd-dispatcher/routable.d/20-ntsclient
said 'told to measure at once' && guest run dispatched true
guest run same test "$(main)" = "$before"

timedatectl set-ntp false
guest run off systemctl is-active ntsclient.service
timedatectl set-ntp true
for n in $(seq 60); do systemctl -q is-active ntsclient.service && break; sleep 1; done
guest run on systemctl is-active ntsclient.service

echo '# the administrator was here' >>/etc/ntsclient.toml
before=$(main)
guest run upgrade dpkg -i /root/ntsclient.deb
guest run kept grep -c 'the administrator was here' /etc/ntsclient.toml
guest run still systemctl is-active ntsclient.service
guest run restarted test "$(main)" != "$before"
systemctl start ntsclient-wait.service
guest run stop systemctl stop ntsclient.service
guest run warm ntsclient sync --json

systemctl disable -q --now ntsclient.service
systemctl enable -q --now ntsclient-sync.timer
guest run ticks systemctl is-active ntsclient-sync.timer
systemctl start ntsclient-sync.service
before=$(started)
/usr/lib/networkd-dispatcher/routable.d/20-ntsclient
systemctl start ntsclient-sync.service
guest run once test "$(started)" -gt "$before"

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
systemctl enable -q --now ntsclient.service
guest run last journalctl -b --no-pager -o short-monotonic -u 'ntsclient*'

guest run purge dpkg --purge ntsclient
sh /root/list >/root/after
guest run left sh -c 'diff /root/before /root/after | grep "^>"; ls -d /run/ntsclient; systemctl list-units --all --plain --no-legend "ntsclient*"'
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

	const (
		crystal = 20  // ppm: there is none, but the emulator's clocks are not quite one
		steered = 500 // the kernel's bound: a loop that has just begun makes up for what its first polls find
	)
	correct(t, r["boot"], steered)
	if after := r["after"]; after.Before.Abs() >= oracle.Near {
		t.Errorf("a unit after time-sync.target started with a clock that was off by %v", after.Before)
	}
	for name, want := range map[string]string{
		"waited": "active\n", "wait-sync": "active\n", "failed": "", "timer": "disabled\n", "replaced": "config-files",
		"off": "inactive\n", "on": "active\n", "kept": "1\n", "still": "active\n", "ticks": "active\n",
		"left": "", "nobodys": "", "gone": "", "no-ntp": "no\n",
	} {
		if got := r[name].Stdout; got != want {
			t.Errorf("%s: %q, not %q\n%s", name, got, want, r[name].Stderr)
		}
	}
	for name, lines := range map[string]string{
		"timedatectl": "CanNTP=yes NTP=yes NTPSynchronized=yes LocalRTC=no",
		"service":     "User=ntsclient Type=notify ActiveState=active ConditionResult=yes NRestarts=0 WatchdogUSec=3min",
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
		correct(t, r[name], crystal)
		if r[name].Before.Abs() < time.Second {
			t.Errorf("%s: the clock was right before", name)
		}
	}
	if status := r["service"].Stdout; !strings.Contains(status, "\nStatusText=synchronized: ") {
		t.Errorf("systemd does not say how it stands: %s", status)
	}
	if status := report(t, r["status"], 0); !regexp.MustCompile(`"loop": *true`).MatchString(r["status"].Stdout) {
		t.Errorf("status does not know the loop: %+v", status)
	}
	for _, name := range []string{
		"status", "check", "reload", "reloaded", "refused", "dispatched", "same",
		"upgrade", "restarted", "stop", "once", "read-only", "full", "purge",
	} {
		if got, ok := r[name]; !ok || got.Exit != 0 {
			t.Errorf("%s: exit %d\n%s%s", name, r[name].Exit, r[name].Stdout, r[name].Stderr)
		}
	}
	if strings.Contains(r["journal"].Stdout, "ordering cycle") {
		t.Error("systemd found an ordering cycle")
	}
	// Before the network is there it may say so, and nothing else.
	for _, warned := range regexp.MustCompile(`ntsclient\[\d+\]: level=(WARN|ERROR).*`).FindAllString(r["journal"].Stdout, -1) {
		if !strings.Contains(warned, `msg="no agreed time"`) && !strings.Contains(warned, "verdict=failed") {
			t.Errorf("at boot it warned: %s", warned)
		}
	}
	warm := report(t, r["warm"], 0)
	warm.keyExchange(t, false)
	correct(t, r["warm"], crystal)
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
