#!/bin/sh
# Take an interface back after a time, whatever becomes of who changed it; root only.
#
#   sh watch.sh arm DEV SECONDS     run `link.sh clear DEV` in so many seconds; again: so many from now
#   sh watch.sh cancel DEV          don't
#   sh watch.sh left DEV            seconds that are left; nothing if it is not armed
#
# One sleeping process for each armed interface, none otherwise. Its folder holds a copy of
# link.sh, which must lie beside this file when arming, and the time, in seconds since boot.
set -eu
PATH=$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C

die() {
    printf 'watch.sh: %s\n' "$1" >&2
    exit 1
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# Seconds since boot: no clock that somebody sets.
now() { sed 's/[. ].*//' /proc/uptime; }

# The process that waits, if the folder's one is still it and not another with its number.
watcher() {
    pid=$(cat "$folder/pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -Fq "$folder/watch.sh wait $dev" || return 1
    printf '%s\n' "$pid"
}

arm() {
    case $1 in
    '' | *[!0-9]*) die "$1 is no number of seconds" ;;
    esac
    mkdir -m 700 "$folder" 2>/dev/null || [ -d "$folder" ] || die "can't make $folder: be root"
    old=$(watcher) || old=
    here=$(dirname "$0")
    [ "$here" = "$folder" ] || cp "$here/link.sh" "$here/watch.sh" "$folder/"
    printf '%s\n' "$(($(now) + $1))" >"$folder/deadline.new"
    mv "$folder/deadline.new" "$folder/deadline"
    # A session of its own, with nothing of ours open: the end of an SSH session is not its end.
    setsid sh "$folder/watch.sh" wait "$dev" </dev/null >/dev/null 2>&1 &
    printf '%s\n' "$!" >"$folder/pid"
    # Only now: at no time is nobody watching.
    if [ -n "$old" ]; then end "$old"; fi
}

# Its session: the sleep too.
end() { kill -s TERM -- "-$1" 2>/dev/null || kill -s TERM "$1" 2>/dev/null || true; }

# Sleeps until the deadline, which may have moved by then.
wait_and_clear() {
    while [ -e "$folder/deadline" ]; do
        left=$(($(cat "$folder/deadline") - $(now)))
        if [ "$left" -le 0 ]; then
            sh "$folder/link.sh" clear "$dev"
            rm -rf "$folder"
            return
        fi
        sleep "$left"
    done
}

cancel() {
    if pid=$(watcher); then end "$pid"; fi
    rm -rf "$folder"
}

left() {
    if watcher >/dev/null; then printf '%s\n' "$(($(cat "$folder/deadline") - $(now)))"; fi
}

[ $# -ge 2 ] || usage
verb=$1
dev=$2
case $dev in
*/* | . | ..) die "$dev is no interface" ;;
esac
# Of this network namespace: another one may have an interface of the same name.
space=$(readlink /proc/self/ns/net | tr -dc 0-9)
folder=${NETEM_RUN:-/run}/netem-watch-$space-$dev
case $verb in
arm) arm "${3:-}" ;;
cancel) cancel ;;
left) left ;;
wait) wait_and_clear ;;
*) usage ;;
esac
