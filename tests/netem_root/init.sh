#!/bin/sh
# Process 1 of the kernel that uml.py boots: mounts, modules, one command, the mark.
# LOOKOUT_UML comes on the kernel's command line: a folder of the host with what to do.
# Output goes through the serial line, and ends with the mark, on which uml.py ends the kernel.
set -eu

say_and_end() {
    # What the command wrote to files must be on the host before the host sees the mark.
    sync
    printf '%s %s\n' "$mark" "$1"
    # Process 1 may not end: the kernel would panic before the line is read.
    while :; do sleep 60; done
}

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm /dev/pts /run/uml
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
# The folder lies under /tmp, which gets a file system of the guest's own next. So may the
# checkout and its environment: what `keep` lists is put back into the new one.
mount --bind "$LOOKOUT_UML" /run/uml
number=0
while read -r folder; do
    number=$((number + 1))
    mkdir -p "/run/keep/$number"
    mount --bind "$folder" "/run/keep/$number"
done </run/uml/keep
mount -t tmpfs tmpfs /tmp
number=0
while read -r folder; do
    number=$((number + 1))
    mkdir -p "$folder"
    mount --bind "/run/keep/$number" "$folder"
done </run/uml/keep

stty -F /dev/ttyS0 raw -echo
exec </dev/null >/dev/ttyS0 2>&1
mark=$(cat /run/uml/mark)
trap 'say_and_end "boot"' EXIT

hostname lookout-uml
ip link set lo up
while read -r module; do insmod "$module"; done </run/uml/modules
mkdir -p /tmp/home
export HOME=/tmp/home TMPDIR=/tmp

trap - EXIT
set +e
printf '%s begin\n' "$mark"
sh /run/uml/job.sh
say_and_end "$?"
