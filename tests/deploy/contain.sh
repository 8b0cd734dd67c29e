#!/usr/bin/env bash
# contain.sh SCRIPT: runs SCRIPT in namespaces and a control group of its own, and removes that group
# after it. However it ends, its processes, mounts and network are gone with it.
set -uo pipefail

PREFIX=iot-deploy-test-
export CONTROL_GROUP="$PREFIX$$"

# enter DIRECTORY: makes our group there and moves this process into it, if that is a hierarchy.
enter() {
    [[ -e $1/cgroup.procs ]] || return 0
    mkdir "$1/$CONTROL_GROUP" && echo 0 >"$1/$CONTROL_GROUP/cgroup.procs"
}

# Our group in the hierarchy of this name; the one of version 2 has none.
present() { awk -F: -v name="$1" '$2 == name { print $3 }' /proc/self/cgroup; }

# remove GROUP: with those that were made beside or below it; fails while somebody is in it.
remove() {
    local ours=('(' -path "*/$1" -o -path "*/$1[-/]*" ')')
    find /sys/fs/cgroup -depth -type d "${ours[@]}" -exec rmdir {} + 2>/dev/null
    [[ -z $(find /sys/fs/cgroup -type d "${ours[@]}" -print -quit 2>/dev/null) ]]
}

leave() {
    # What was killed with its namespace may not be reaped yet.
    for _ in {1..50}; do
        ! remove "$CONTROL_GROUP" || return 0
        sleep 0.1
    done
}

# What runs that were killed have left.
sweep() {
    local group pid
    while IFS= read -r group; do
        pid=${group##*/"$PREFIX"}
        pid=${pid%%[!0-9]*}
        kill -0 "$pid" 2>/dev/null || remove "$PREFIX$pid" || true
    done < <(find /sys/fs/cgroup -type d -name "$PREFIX*" 2>/dev/null)
}

sweep

trap : INT TERM HUP
(
    # Version 2 alone, or beside version 1.
    enter "/sys/fs/cgroup$(present '')"
    enter "/sys/fs/cgroup/unified$(present '')"
    enter "/sys/fs/cgroup/systemd$(present name=systemd)"
    exec setpriv --pdeathsig KILL \
        unshare --mount --pid --net --ipc --uts --fork --kill-child --mount-proc bash "$1"
) &
child=$!
# A signal ends the wait, and not what is waited for.
while :; do
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break
done
leave
exit "$status"
