#!/bin/sh
# Stands in for systemd on a machine of the lab, whose packages and operators call it: it starts and stops what
# the units in /usr/lib/systemd/system say, as the user that they say, with their directories. It restarts nothing
# by itself, and confines nothing. What it was asked is in /run/systemctl.log.
set -u
echo "systemctl $*" >>/run/systemctl.log
verb='' units=''
for word; do
	case $word in
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$word; else units="$units $word"; fi ;;
	esac
done

value() { # KEY: of the unit
	sed -n "s/^$1=//p" "$file" | tail -n 1
}

alive() {
	[ -s "$pidfile" ] && [ -d "/proc/$(cat "$pidfile")" ]
}

directory() { # PARENT KEY: the directory that the unit wants there
	name=$(value "$2")
	[ -n "$name" ] || return 0
	[ -d "$1/$name" ] || install -d -m "$(value "$2Mode")" -o "${user:-root}" -g "${user:-root}" "$1/$name"
}

start() {
	alive && return 0
	user=$(value User)
	condition=$(value ExecCondition | sed 's/\$\$/$/g')
	if [ -n "$condition" ] && ! sh -c "$condition"; then
		echo "$unit: skipped: its condition was not met" >>/run/systemctl.log
		return 0
	fi
	directory /var/lib StateDirectory
	directory /run RuntimeDirectory
	set --
	if [ -n "$user" ] && [ "$user" != root ]; then
		set -- setpriv --reuid "$user" --regid "$user" --init-groups --
	fi
	# shellcheck disable=SC2046 # the words of a command
	setsid "$@" $(value ExecStart) >>"/run/$unit.log" 2>&1 </dev/null &
	echo $! >"$pidfile"
}

stop() {
	alive || return 0
	kill "$(cat "$pidfile")"
	while alive; do sleep 0.05; done
	rm "$pidfile"
}

case $verb in
daemon-reload) exit 0 ;;
'') exit 1 ;;
esac
for name in $units; do
	unit=${name%.service}.service
	file=/usr/lib/systemd/system/$unit pidfile=/run/$unit.pid
	if [ ! -e "$file" ]; then
		[ "$verb" = is-enabled ] && echo static # of systemd itself
		[ "$verb" = is-enabled ] || [ "$verb" = is-active ] && exit 1
		continue
	fi
	case $verb in
	is-enabled)
		if ls /etc/systemd/system/*.wants/"$unit" >/dev/null 2>&1; then echo enabled; else echo disabled; exit 1; fi
		;;
	is-active)
		if alive; then echo active; else echo inactive; exit 3; fi
		;;
	start) start ;;
	stop) stop ;;
	restart) stop && start ;;
	try-restart) if alive; then stop && start; fi ;;
	enable | preset)
		mkdir -p "/etc/systemd/system/$(value WantedBy).wants"
		ln -sf "$file" "/etc/systemd/system/$(value WantedBy).wants/$unit"
		;;
	status | show) ;;
	*)
		echo "systemctl: no $verb on this machine" >&2
		exit 1
		;;
	esac
done
