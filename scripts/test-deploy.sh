#!/usr/bin/env bash
# Both deployments, seen to come up, die and recover: on a systemd that is booted for it, and on a
# Docker engine that is started for it. Ends with a count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/test-deploy.sh [--suite SUITE [--base SUITE]] [TEST...]

Installs what is missing (debootstrap, systemd-container, prometheus, jq, lintian and others, from Debian's or
Ubuntu's packages), makes three Debian trees below target/deploy-test, and runs:

  files       the unit's sandbox, the settings, the alerts and their tests, the dashboard, as files
  dashboard   every panel's query against a Prometheus that scrapes an ingestor at work
  systemd     the service on a booted systemd: kill, hang, stop, upgrade, reboot, removal
  package     the package on the same: three commands to the first row, upgrade, rollback, removal
  timescaledb the table as a hypertable of TimescaleDB, on a third tree: made of a plain one under load, kills,
              an outage, late readings, all pages, what is old
  docker      the compose file on a Docker engine: build, database outage, kill, new containers, TLS and
              passwords. The engine is a real one, the images it starts from are made here, since no
              registry is asked

  --suite SUITE  runs package alone, on a machine of that Debian, such as bullseye, with programs that are built
                 for it (scripts/package.sh --base SUITE)
  --base SUITE   or for this one, which is older: what a release is built for has to run on all that came after

systemd, package, timescaledb and docker need root, and run in namespaces of their own: nothing of the machine is touched,
and nothing is left running. What this machine cannot run is SKIPPED, with the reason; with CI=true that
is a failure, unless the kernel or the rights are the reason.
TEXT
}

ALL=(files dashboard systemd package timescaledb docker)
WANTED=() SUITE='' BASE=''
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
[[ $TARGET == /* ]] || TARGET="$PWD/$TARGET"
TREES="$TARGET/deploy-test"
FAILED=0 INCAPABLE=0 UNPREPARED=0
# When the test that runs has to be done (in seconds of this shell), if it has to.
DEADLINE=''

# What is booted, and what stands in for each image of the compose file. Its C library must not be older
# than this machine's, or programs built here would not run there.
MACHINE_SUITE=trixie
! grep -q '^VERSION_CODENAME=bookworm' /etc/os-release || MACHINE_SUITE=bookworm
MACHINE_PACKAGES=(ca-certificates systemd systemd-sysv dbus postgresql mosquitto mosquitto-clients
    prometheus gcc libc6-dev busybox netcat-openbsd openssl procps iproute2)
# The first suite that has it.
TIMESCALE_SUITE=trixie
TIMESCALE_PACKAGES=(ca-certificates systemd systemd-sysv dbus postgresql postgresql-17-timescaledb mosquitto
    mosquitto-clients busybox openssl procps iproute2)
# The first suite with version 2 of compose, and with buildx.
DOCKER_SUITE=trixie
DOCKER_PACKAGES=(ca-certificates docker.io docker-cli docker-compose docker-buildx iptables)

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --suite | --base)
                (($# > 1)) || bad_usage "$1 needs a value"
                if [[ $1 == --suite ]]; then SUITE=$2; else BASE=$2; fi
                shift
                ;;
            *)
                [[ " ${ALL[*]} " == *" $1 "* ]] || other_argument "$1"
                WANTED+=("$1")
                ;;
        esac
        shift
    done
    [[ -n $SUITE || -z $BASE ]] || bad_usage "--base goes with --suite"
    if [[ -n $SUITE ]]; then
        [[ ${WANTED[*]:-package} == package ]] || bad_usage "--suite goes with package alone"
        WANTED=(package) MACHINE_SUITE=$SUITE BASE=${BASE:-$SUITE}
    fi
    ((${#WANTED[@]} > 0)) || WANTED=("${ALL[@]}")
}

prepare() {
    need_cargo
    need_commands cc=gcc,libc6-dev postgres=postgresql mosquitto=mosquitto setpriv=util-linux curl=curl \
        debootstrap=debootstrap,debian-archive-keyring systemd-nspawn=systemd-container systemd-analyze=systemd \
        prometheus=prometheus promtool=prometheus jq=jq openssl=openssl ip=iproute2 pgrep=procps
    if [[ -z $BASE ]]; then
        say 'building the release binaries (cargo)…'
        run_child cargo cargo build --release --locked --bin ingestor --bin simulator ||
            fail "cargo build failed"
    fi
    mkdir -p "$TREES"
    # What the suite is built with, and not what is shipped, which takes minutes more to build.
    export BUILD_PROFILE=release
    export BIN_DIR="$TARGET/${BASE:+$(host_triple)/}release" RESULTS="$WORK_DIR/results"
    export MACHINE_TREE="$TREES/machine${SUITE:+-$SUITE}" DOCKER_TREE="$TREES/docker" TIMESCALE_TREE="$TREES/timescaledb"
    export VENDORED="$TREES/vendored"
    : >"$RESULTS"
    # What a test leaves behind is its logs, and goes the way of ours.
    export TMPDIR="$LOG_DIR"
    # Servers that run as a user of their own have to get to theirs.
    chmod 711 "$LOG_DIR"
}

# --- what the tests stand on ---------------------------------------------------------------------

# made PATH WHAT COMMAND...: has COMMAND make PATH, unless it is there and was made of the same.
made() {
    local path=$1 what=$2
    shift 2
    if [[ $(cat "$path.made-of" 2>/dev/null) == "$what" ]]; then
        return
    fi
    say "   making $path (some minutes)…"
    rm -rf -- "$path" "$path.made-of"
    bound
    if ! run_child "${path##*/}" "${BOUND[@]}" "$@" >"$LOG_DIR/${path##*/}.log" 2>&1; then
        show_log "${path##*/}"
        return 1
    fi
    printf '%s' "$what" >"$path.made-of"
}

# A Debian, made in namespaces of its own for the sake of its mounts.
tree() {
    local path=$1
    shift
    made "$path" "$*" unshare --mount --pid --fork --kill-child bash tests/deploy/make-tree.sh "$path" "$@"
}

# The crates, for a build without a network.
vendored() {
    made "$VENDORED" "$(sha256sum <Cargo.lock)" cargo vendor --locked --versioned-dirs "$VENDORED"
}

# capability TEST: whether the kernel and our rights allow what it does; says why not.
capability() {
    ((EUID == 0)) || { say 'root is needed' && return 1; }
    unshare --mount --pid --net --ipc --uts --fork --kill-child --mount-proc sh -c '
        mount -t tmpfs tmpfs /run && mkdir /run/lower /run/upper /run/work /run/all &&
        mount -t overlay overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work /run/all' \
        >/dev/null 2>&1 || { say 'namespaces or overlay mounts are not allowed here' && return 1; }
    [[ $1 != docker ]] || unshare --net sh -c '
        ip link add bridge0 type bridge && ip link add veth0 type veth peer name veth1' \
        >/dev/null 2>&1 || { say 'the kernel has no bridges for containers' && return 1; }
}

need_for() {
    case $1 in
        systemd) tree "$MACHINE_TREE" "$MACHINE_SUITE" "${MACHINE_PACKAGES[@]}" ;;
        package) tree "$MACHINE_TREE" "$MACHINE_SUITE" "${MACHINE_PACKAGES[@]}" && packages ;;
        timescaledb) tree "$TIMESCALE_TREE" "$TIMESCALE_SUITE" "${TIMESCALE_PACKAGES[@]}" ;;
        docker)
            tree "$MACHINE_TREE" "$MACHINE_SUITE" "${MACHINE_PACKAGES[@]}" &&
                tree "$DOCKER_TREE" "$DOCKER_SUITE" "${DOCKER_PACKAGES[@]}" && vendored
            ;;
    esac
}

# Two of the same programs.
packages() {
    export PACKAGES="$TREES/packages${BASE:+-$BASE}"
    local version revision of=(--binaries "$BIN_DIR")
    need_commands lintian=lintian
    [[ -z $BASE ]] || of=(--base "$BASE")
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    rm -rf -- "$PACKAGES"
    mkdir -p "$PACKAGES"
    for revision in 1 2; do
        bound
        "${BOUND[@]}" scripts/package.sh "${of[@]}" --version "$version-$revision" --output "$PACKAGES" || return
    done
}

# --- the tests -----------------------------------------------------------------------------------

# set_deadline TEST: by LIMITS ("files=120 docker=1500"), which .ci/run sets.
set_deadline() {
    local limit
    DEADLINE=''
    for limit in ${LIMITS:-}; do
        [[ ${limit%=*} != "$1" ]] || DEADLINE=$((SECONDS + ${limit#*=}))
    done
}

# Sets BOUND: what, before a command, ends it at the deadline.
bound() {
    BOUND=()
    [[ -z $DEADLINE ]] || BOUND=(timeout --kill-after=30 "$((DEADLINE > SECONDS ? DEADLINE - SECONDS : 1))")
}

run_test() {
    local name=$1 status=0 start=$SECONDS reason command=(bash "tests/deploy/$1.sh")
    say "── $name"
    set_deadline "$name"
    if [[ $name != files && $name != dashboard ]]; then
        if ! reason=$(capability "$name"); then
            say "   SKIPPED: $reason"
            INCAPABLE=$((INCAPABLE + 1))
            ended "$name" skipped
            return
        fi
        if ! need_for "$name"; then
            say '   SKIPPED: what it stands on could not be made, see above'
            UNPREPARED=$((UNPREPARED + 1))
            ended "$name" unprepared
            return
        fi
        # The whole of it is one process with its descendants, and ends with it.
        command=(bash tests/deploy/contain.sh "tests/deploy/$name.sh")
    fi
    bound
    run_child "$name" "${BOUND[@]}" "${command[@]}" || status=$?
    case $status in
        0)
            say "   $((SECONDS - start)) s"
            ended "$name" passed
            ;;
        77)
            # It has said why.
            INCAPABLE=$((INCAPABLE + 1))
            ended "$name" skipped
            ;;
        *)
            FAILED=$((FAILED + 1))
            ended "$name" failed
            complain "   FAILED: $name, after $((SECONDS - start)) s"
            ;;
    esac
}

# ended TEST HOW: for .ci/run, which may have to end all of it before its end.
ended() { [[ -z ${OUTCOMES:-} ]] || printf '%s %s\n' "$1" "$2" >>"$OUTCOMES"; }

main() {
    read_arguments "$@"
    begin iot-deploy
    prepare
    local name
    for name in "${WANTED[@]}"; do
        run_test "$name"
    done
    if [[ ${CI:-} == true ]]; then
        FAILED=$((FAILED + UNPREPARED)) UNPREPARED=0
    fi
    say ''
    say "$(wc -l <"$RESULTS") passed, $FAILED failed, $((INCAPABLE + UNPREPARED)) skipped"
    ((FAILED == 0))
}

main "$@"
