#!/bin/sh
# Installs ntsclient, for systems without a package of it; --remove takes it
# away again, but for its configuration.
#
#   ./install.sh [--remove]
#
# Environment: PREFIX (default /usr/local), and DESTDIR to put files there only.
set -eu
cd "$(dirname "$0")"
prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
units=$dest/etc/systemd/system
systemd() { [ -z "$dest" ] && [ -d /run/systemd/system ]; }
files() { # as: mode, what, where
	echo 755 ntsclient "$prefix/bin/ntsclient"
	for page in man/*.[58]; do
		echo 644 "$page" "$prefix/share/man/man${page##*.}/${page##*/}"
	done
	echo 644 completions/ntsclient.bash "$prefix/share/bash-completion/completions/ntsclient"
	echo 644 completions/_ntsclient "$prefix/share/zsh/site-functions/_ntsclient"
	echo 644 completions/ntsclient.fish "$prefix/share/fish/vendor_completions.d/ntsclient.fish"
	echo 644 systemd/50-ntsclient.list "$prefix/lib/systemd/ntp-units.d/50-ntsclient.list"
}
[ -n "$dest" ] || [ "$(id -u)" = 0 ] || { echo "install.sh: this needs root" >&2; exit 1; }

if [ "${1-}" = --remove ]; then
	for unit in systemd/*.service systemd/*.timer; do
		if systemd; then systemctl disable --now "${unit##*/}" || true; fi
		rm -f "$units/${unit##*/}"
	done
	if systemd; then systemctl daemon-reload; fi
	files | while read -r _ _ where; do rm -f "$dest$where"; done
	rm -rf "$dest/var/lib/ntsclient"
	echo "removed; what is left is /etc/ntsclient.toml and the user ntsclient"
	exit
fi

files | while read -r mode what where; do install -D -m "$mode" "$what" "$dest$where"; done
[ -e "$dest/etc/ntsclient.toml" ] || install -D -m 644 ntsclient.toml "$dest/etc/ntsclient.toml"
for unit in systemd/*.service systemd/*.timer; do
	install -D -m 644 "$unit" "$units/${unit##*/}"
	sed -i "s|/usr/bin/ntsclient|$prefix/bin/ntsclient|" "$units/${unit##*/}"
done
if [ -z "$dest" ]; then
	id ntsclient >/dev/null 2>&1 ||
		useradd --system --home-dir /var/lib/ntsclient --shell /usr/sbin/nologin ntsclient ||
		adduser -S -D -H -h /var/lib/ntsclient -s /sbin/nologin ntsclient # busybox
	install -d -m 711 -o ntsclient /var/lib/ntsclient
fi
if systemd; then
	systemctl daemon-reload
	systemctl enable BOOT
	systemctl enable --now ENABLED
	echo "installed; \"ntsclient status\" says how it stands"
else
	echo "installed; examples/cron shows how to run it at boot and every few hours"
fi
