#!/bin/sh
# The Debian packages that the tests use: installed where that is possible, named where it is not.
set -eu
missing=""
for pair in ip:iproute2 nft:nftables sysctl:procps; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "NOT TESTED HERE: what needs the packages$missing; install them to have it tested"
fi
