#!/bin/sh
# The Debian packages that the tests and the demo use: installed where that is possible, named where it is not.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
[ "$(uname -s)" = Linux ] || { echo "LEFT OUT HERE: NATs of the kernel, which only Linux has"; exit 0; }
missing=""
for pair in ip:iproute2 nft:nftables sysctl:procps unshare:util-linux; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "LEFT OUT HERE: NATs of the kernel, which need the packages$missing; install them to have both peers behind NATs"
