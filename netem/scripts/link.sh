#!/bin/sh
# Make one interface of this machine lossy, slow or cut, and take it back; root only.
#
#   sh link.sh set DEV NETEM…         what is sent:    sh link.sh set eth1 delay 50ms loss 10%
#   sh link.sh set-ingress DEV NETEM… what arrives, through an IFB device
#   sh link.sh show DEV
#   sh link.sh clear DEV              takes away what set did, and nothing else
#
# NETEM are the words of `man tc-netem`. What it makes carries the signs of the command `netem`
# (handles 4c4b: and 4c4c:, pref 19531, an alias with what was before), so that each undoes what
# the other did. It refuses qdiscs of others, and stops at the first command that fails.
set -eu
PATH=$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C

handle=4c4b:
pref=19531

die() {
    printf 'link.sh: %s\n' "$1" >&2
    exit 1
}

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# --- what is there ---------------------------------------------------------------------------

alias_of() { ip link show dev "$dev" | sed -n 's/^ *alias //p'; }

mtu_of() { ip -o link show dev "$dev" | sed -n 's/.* mtu \([0-9]*\) .*/\1/p'; }

# The word after `netem` of our root qdisc is its handle; nothing if the root is not ours.
root_is_ours() { tc qdisc show dev "$1" root | grep -Eq '^qdisc netem 4c4[bc]: root'; }

# The kernel's own root qdiscs have the handle 0.
root_is_free() { ! tc qdisc show dev "$1" root | grep -E '^qdisc [^ ]+ [^ ]+ .*root' | grep -Evq ' 0: '; }

has_ingress() { tc qdisc show dev "$dev" | grep -Eq '^qdisc (ingress|clsact) '; }

redirects() { has_ingress && tc filter show dev "$dev" ingress | grep -q " pref $pref "; }

has_ifb() { ip link show dev "$ifb" >/dev/null 2>&1; }

# Segments that TCP may hand over as one packet, whatever the features say.
segments_of() { ip -d -o link show dev "$dev" | sed -n 's/.* gso_max_segs \([0-9]*\) .*/\1/p'; }

# Features that are on and can be switched, with commas; they join packets into large ones.
offload_on() {
    ethtool -k "$dev" | sed -n \
        -e 's/^tcp-segmentation-offload: on$/tso/p' \
        -e 's/^generic-segmentation-offload: on$/gso/p' \
        -e 's/^generic-receive-offload: on$/gro/p' \
        -e 's/^large-receive-offload: on$/lro/p' | paste -sd, -
}

# `switch_offload tso,gso off`
switch_offload() {
    for feature in $(printf '%s' "$1" | tr , ' '); do
        ethtool -K "$dev" "$feature" "$2"
    done
}

# --- what it does ----------------------------------------------------------------------------

# Writes down what was, once, and switches off what joins packets.
note() {
    was=$(alias_of)
    case $was in
    "netem mtu="*) return ;;
    esac
    on=$(offload_on)
    segments=$(segments_of)
    ip link set dev "$dev" alias \
        "netem mtu=$(mtu_of) offload=$on ${segments:+segments=$segments }shape=uniform,uniform was=$was"
    switch_offload "$on" off
    [ -z "$segments" ] || ip link set dev "$dev" gso_max_segs 1
}

# `put DEV NETEM…`: ours anew, for a change would keep what it isn't told.
put() {
    target=$1
    shift
    if root_is_ours "$target"; then
        tc qdisc del dev "$target" root
    elif ! root_is_free "$target"; then
        die "$target has a root qdisc that is not ours; remove it: tc qdisc del dev $target root"
    fi
    tc qdisc add dev "$target" root handle "$handle" netem "$@"
}

set_egress() {
    root_is_ours "$dev" || root_is_free "$dev" \
        || die "$dev has a root qdisc that is not ours; remove it: tc qdisc del dev $dev root"
    note
    put "$dev" "$@"
}

set_ingress() {
    if has_ingress && ! redirects; then
        die "$dev has an ingress qdisc that is not ours; remove it: tc qdisc del dev $dev ingress"
    fi
    note
    has_ifb || ip link add name "$ifb" type ifb
    ip link set dev "$ifb" up
    put "$ifb" "$@"
    redirects && return
    tc qdisc add dev "$dev" handle ffff: ingress
    tc filter add dev "$dev" parent ffff: protocol all pref "$pref" matchall \
        action mirred egress redirect dev "$ifb"
}

clear_all() {
    if root_is_ours "$dev"; then tc qdisc del dev "$dev" root; fi
    if redirects; then tc qdisc del dev "$dev" ingress; fi
    if has_ifb; then ip link del dev "$ifb"; fi
    text=$(alias_of)
    case $text in
    "netem mtu="*) ;;
    *) return ;;
    esac
    mtu=${text#netem mtu=}
    mtu=${mtu%% *}
    on=${text#* offload=}
    on=${on%% *}
    case $text in
    *" segments="*) segments=${text#* segments=} && segments=${segments%% *} ;;
    *) segments= ;;  # the note of an older version
    esac
    [ "$(mtu_of)" = "$mtu" ] || ip link set dev "$dev" mtu "$mtu"
    switch_offload "$on" on
    [ -z "$segments" ] || ip link set dev "$dev" gso_max_segs "$segments"
    # The note goes last: until then a second clear finds it.
    ip link set dev "$dev" alias "${text#* was=}"
}

show() {
    tc -s qdisc show dev "$dev"
    if has_ifb; then tc -s qdisc show dev "$ifb"; fi
}

[ $# -ge 2 ] || usage
verb=$1
dev=$2
shift 2
line=$(ip -o link show dev "$dev") || die "there is no interface $dev: see ip link"
ifb=netem-ifb${line%%:*}
case $verb in
set) set_egress "$@" ;;
set-ingress) set_ingress "$@" ;;
show) show ;;
clear) clear_all ;;
*) usage ;;
esac
