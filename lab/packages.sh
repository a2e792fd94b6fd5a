#!/bin/sh
# The Debian packages that the tests and the demo use: installed where that is possible, named where it is not.
set -eu
PATH="$PATH:/usr/sbin:/sbin:/usr/local/go/bin"
export DEBIAN_FRONTEND=noninteractive
[ "$(uname -s)" = Linux ] || { echo "LEFT OUT HERE: NATs of the kernel, which only Linux has"; exit 0; }

has() { command -v "$1" >/dev/null 2>&1; }

can_install() { [ "$(id -u)" = 0 ] && has apt-get && apt-get update -qq; }

install() {
    echo "installing $*"
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Whether the package is to be had in this version or a newer one.
offered() { dpkg --compare-versions "$(apt-cache policy "$1" | awk '/Candidate:/ { print $2 }')" ge "$2"; }

missing=""
for pair in ip:iproute2 nft:nftables sysctl:procps unshare:util-linux; do
    has "${pair%%:*}" || missing="$missing ${pair##*:}"
done
# shellcheck disable=SC2086
[ -z "$missing" ] || { can_install && install $missing; } ||
    echo "LEFT OUT HERE: NATs of the kernel, which need the packages$missing; install them to have both peers behind NATs"
has go || { can_install && offered golang-go 2:1.24 && install golang-go; } ||
    echo "LEFT OUT HERE: pion among the ICE agents that ours meets, which needs Go 1.24 or newer"
# Where systemd runs, Debian's package starts a server for everybody; that is for the machine's owner to decide.
has turnserver || { [ ! -d /run/systemd/system ] && can_install && install coturn; } ||
    echo "LEFT OUT HERE: coturn, with which our STUN is compared; install the package coturn to have that done"
has redis-server || { [ ! -d /run/systemd/system ] && can_install && install redis-server; } ||
    echo "LEFT OUT HERE: several servers that are one service, by Redis; install the package redis-server to have them tested"
