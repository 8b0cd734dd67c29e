#!/usr/bin/env bash
# The fault campaign: tries hard to make the service lose or double a reading, and ends in a table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/torture-machine.sh
source scripts/torture-machine.sh

# Name, tests, how often each is tried by default.
CASES=(
    'kill       torture::kills::               60'
    'power-cut  torture::power_cut::          500'
    'io-errors  torture::io_errors::           60'
    'database   torture::database::            60'
    'commits    torture::commits::             60'
    'slow       slow::as_shipped_               1'
    'broker     torture::broker::              40'
    'arrival    torture::arrival::             60'
    'process    torture::process::             30'
    'ingestors  torture::ingestors::           20'
    'model      wal::model_tests::the_log_ 100000'
    'sim        whatever_happens_         1000000'
    'fuzz       torture::fuzz::           1000000'
    'soak       torture::soak::               600'
    'pending    mapped::backlog::         1000000'
    'growing    torture::growing::        5000000'
    'machine    torture::machine::             20'
)

usage() {
    cat <<'TEXT'
Usage: scripts/torture.sh [--cases all|NAME[,NAME...]] [--count N] [--seed S] [--package FILE]

Does the worst to the real service, between a private broker and a private PostgreSQL, again and again,
and compares each time what was acknowledged with what is in the table. Installs what is missing
(Debian's or Ubuntu's packages; cargo-nextest into target/tools; a kernel into target/machine). As root
it also fills and breaks filesystems.

  --cases   which of these, all of them but growing by default:
            kill        SIGKILL at random moments, and at each point of the code
            power-cut   disks as a power cut could leave them, and the control without syncs
            io-errors   EIO, ENOSPC, slow syncs, a full and a read-only filesystem
            database    killed, stopped, restarted, locked, refused, renamed, full, answers lost, bad rows
            commits     a database that need not wait for its disk when it confirms, killed
            slow        a database at the end of a thin line, or with a slow table, at the sizes as shipped
            broker      restarted, killed, cut off, taken over, too large, narrow
            arrival     messages without a time, most of which say the same: killed, power cut, broker restarted,
                        cut off, taken over, all that it keeps sent again
            process     SIGSTOP, a second instance, no more memory, a clock that jumps
            ingestors   three with filters of their own, two that both take everything, one of them
                        killed at random; and what the second way costs
            model       the log against a model, in memory and (a hundredth as often) on disk
            sim         the deciders, joined, against models of broker, disk and database, in simulated
                        time; a failure also prints the shortest schedule that still fails
            fuzz        mutations of the corpora of tests/fuzz
            soak        all faults at random; --count is in seconds
            pending     a configuration that changes in front of a long backlog; --count is its records
            growing     old rows removed, and a table of the first release with four times as many migrated
                        and partitioned, while rows come in; --count is the rows; half an hour, not in all
            machine     a machine in QEMU that is killed, its disk forgetting what was not flushed, and
                        the control without syncs; Debian on x86-64 only
  --count   how often each case is tried; by default so often that all of it takes an hour
  --seed    the first seed; each further try has the next one. A failure names its seed:
            --cases NAME --count 1 --seed S tries that one again (but a machine in QEMU never takes
            the same time twice)
  --package FILE    tries the program of this package of Debian in place of one that is built here; that of another
            machine under QEMU; all are those cases then that run the service as it is
  --help    this text

Exits with 0 if nothing was lost or doubled.
TEXT
}

WANTED=all COUNT='' SEED='' PACKAGE=''

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --cases | --count | --seed | --package)
                (($# > 1)) || bad_usage "$1 needs a value"
                case $1 in
                    --cases) WANTED=$2 ;;
                    --count) COUNT=$2 ;;
                    --seed) SEED=$2 ;;
                    --package) PACKAGE=$2 ;;
                esac
                shift
                ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
    [[ -z $COUNT || $COUNT =~ ^[1-9][0-9]*$ ]] || bad_usage "--count needs a whole number from 1 on"
    [[ -z $SEED || $SEED =~ ^[0-9]+$ ]] || bad_usage "--seed needs a whole number"
    local name
    for name in ${WANTED//,/ }; do
        [[ $name == all ]] || printf '%s\n' "${CASES[@]}" | grep -q "^$name " ||
            bad_usage "there is no case $name"
    done
}

# nextest FILTER [NAME=VALUE...]
nextest() {
    local filter=$1 target=(--test it)
    shift
    case $filter in
        torture::* | slow::* | mapped::*) ;;
        whatever_happens_) target=(--test sim) ;;
        *) target=(--lib) ;;
    esac
    run_child nextest env TORTURE_RESULTS="$RESULTS" "$@" \
        cargo nextest run --release --locked --profile torture --run-ignored all "${target[@]}" \
        -E "test(/^$filter/)"
}

# Sets TORTURE_PROGRAM to that of the package, which QEMU runs if it is of another machine.
unpack() {
    local arch cpu='' libraries version
    [[ -n $PACKAGE ]] || return 0
    arch=$(dpkg-deb --field "$PACKAGE" Architecture) || fail "$PACKAGE is no package"
    dpkg-deb --extract "$PACKAGE" "$WORK_DIR/package"
    export TORTURE_PROGRAM="$WORK_DIR/package/usr/bin/ingestor"
    if [[ $arch != $(dpkg --print-architecture) ]]; then
        case $arch in
            arm64) cpu=aarch64 ;;
            armhf) cpu=arm ;;
            *) fail "nothing here runs programs for $arch" ;;
        esac
        need_commands "qemu-$cpu-static=qemu-user-static"
        # The loader of one C library must not find another.
        if [[ $(dpkg-query --show --showformat='${db:Status-Status}' "libc6:$arch" 2>/dev/null) == installed ]]; then
            libraries=/
        else
            [[ -e /usr/share/doc/libgcc-s1-$arch-cross ]] || install_packages "libc6-$arch-cross" "libgcc-s1-$arch-cross"
            libraries=/usr/$(dpkg-architecture --host-arch "$arch" --query DEB_HOST_GNU_TYPE)
        fi
        printf '#!/bin/sh\nexec qemu-%s-static -L %s "%s" "$@"\n' \
            "$cpu" "$libraries" "$TORTURE_PROGRAM" >"$WORK_DIR/emulated"
        chmod 755 "$WORK_DIR/emulated"
        export TORTURE_PROGRAM="$WORK_DIR/emulated"
    fi
    version=$("$TORTURE_PROGRAM" --version) || fail "the program of $PACKAGE does not run here"
    say "with $version, of $PACKAGE${cpu:+, emulated}"
}

# row CASE TRIES: of what has no table of its own.
row() { printf '%s\t%s\t0\t0\t0\n' "$1" "$2" >>"$RESULTS"; }

run_case() {
    local name=$1 filter=$2 count=${COUNT:-$3}
    say "── $name"
    case $name in
        model)
            nextest "${filter}in_memory" PROPTEST_CASES="$count" && row 'model, in memory' "$count"
            local fewer=$((count / 100 + 1))
            nextest "${filter}on_disk" PROPTEST_CASES="$fewer" && row 'model, on disk' "$fewer"
            ;;
        sim)
            nextest "$filter" SIM_SCHEDULES="$count" ${SEED:+"SIM_SEED=$SEED"} &&
                row 'simulated schedules' "$count"
            ;;
        process)
            nextest "$filter" TORTURE_COUNT="$count" TORTURE_STOP_SECONDS=60 \
                ${SEED:+"TORTURE_SEED=$SEED"}
            ;;
        machine)
            if ! can_have_machine; then
                say 'SKIPPED: it boots the kernel of Debian on x86-64'
                return 0
            fi
            local built=${TOOLS%/tools}
            run_child nextest cargo nextest run --release --locked --test it --no-run || return
            (make_machine "$built/machine" "$built/release/ingestor") || return
            nextest "$filter" TORTURE_COUNT="$count" TORTURE_GUEST="$built/machine" \
                ${SEED:+"TORTURE_SEED=$SEED"}
            ;;
        slow) nextest "$filter" && row 'as slow as that' 2 ;;
        pending)
            nextest "$filter" MAPPED_PENDING="$count" && row 'records pending, mappings changed' "$count"
            ;;
        growing) nextest "$filter" TORTURE_ROWS="$count" && row 'rows, removed and migrated' "$count" ;;
        soak) nextest "$filter" TORTURE_SOAK_SECONDS="$count" ${SEED:+"TORTURE_SEED=$SEED"} ;;
        *) nextest "$filter" TORTURE_COUNT="$count" ${SEED:+"TORTURE_SEED=$SEED"} ;;
    esac
}

table() {
    printf '\n| case | tries | lost | doubled or wrong | longest recovery | loss per try, 95 %% |\n'
    printf '|---|---:|---:|---:|---:|---:|\n'
    awk -F'\t' '{
        bound = $3 + $4 == 0 ? sprintf("≤ %.2g", 3 / $2) : "found"
        printf "| %s | %d | %d | %d | %s | %s |\n", $1, $2, $3, $4, ($5 == 0 ? "" : $5 " s"), bound
    }' "$RESULTS"
}

main() {
    read_arguments "$@"
    begin iot-torture
    RESULTS="$WORK_DIR/results"
    : >"$RESULTS"
    chmod 666 "$RESULTS"
    need_cargo
    need_commands cc=gcc,libc6-dev postgres=postgresql mosquitto=mosquitto \
        mosquitto_passwd=mosquitto strace=strace openssl=openssl setpriv=util-linux faketime=faketime
    cargo_tool cargo-nextest || fail "cargo-nextest could not be installed, see above"
    unpack
    list_skipped
    # What does not run that program.
    [[ -z $PACKAGE || $WANTED != all ]] || WANTED=kill,power-cut,io-errors,database,commits,slow,broker,arrival,ingestors,soak
    local line name filter count failed=''
    for line in "${CASES[@]}"; do
        read -r name filter count <<<"$line"
        # That one takes as long as the others together.
        if [[ $WANTED == all && $name != growing || ,$WANTED, == *,$name,* ]]; then
            run_case "$name" "$filter" "$count" || failed+=" $name"
        fi
    done
    table
    show_skipped
    [[ -z $failed ]] || fail "failed:$failed; the seeds are above"
}

main "$@"
