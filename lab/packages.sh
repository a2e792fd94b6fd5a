#!/bin/sh
# The Debian packages that the tests use: installed where that is possible, named where it is not.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
[ "$(uname -s)" = Linux ] || { echo "NOT TESTED HERE: what needs kernel NATs, which are Linux's"; exit 0; }
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
echo "NOT TESTED HERE: what needs the packages$missing; install them to have it tested"
