#!/usr/bin/env bash
# make-tree.sh DIRECTORY SUITE PACKAGE...: a Debian with these packages, and no service enabled but those
# that a machine boots with. To be run in a mount namespace of its own.
set -euo pipefail
tree=$1 suite=$2
shift 2
export DEBIAN_FRONTEND=noninteractive
# It is not there in the tree.
unset TMPDIR

# shellcheck source=scripts/lib.sh
source scripts/lib.sh

mapfile -t mirror < <(debian_mirror)
debootstrap --variant=minbase "$suite" "$tree" "${mirror[@]}"
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
mount -t proc proc "$tree/proc"
chroot "$tree" apt-get update
chroot "$tree" apt-get install --yes --no-install-recommends "$@"
chroot "$tree" apt-get clean
rm -rf "$tree"/var/lib/apt/lists/* "$tree/usr/sbin/policy-rc.d"
for service in postgresql mosquitto prometheus docker docker.socket containerd; do
    chroot "$tree" systemctl --quiet disable "$service" 2>/dev/null || true
done
