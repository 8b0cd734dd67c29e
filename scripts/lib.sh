# Shared by the scripts here: packages, private servers, and their end. For bash, to be sourced
# under `set -euo pipefail`. Nothing in here touches a server that it did not start.
# shellcheck shell=bash

if ((BASH_VERSINFO[0] < 5)); then
    echo "bash 5 is needed, this is $BASH_VERSION" >&2
    exit 1
fi

# Where Debian keeps servers, and rustup cargo; neither is on every PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin"

# So that texts are counted in characters, and tools speak the language that is matched here.
export LC_ALL=C.UTF-8

WORK_DIR=''          # scratch space, removed at the end
LOG_DIR=''           # logs, removed at the end unless the script failed
POLICY_RC_D=''       # our temporary policy file, while it is there
CHILDREN=()          # processes to end, in the order of their start
declare -A CHILD_NAMES=() CHILD_SIGNALS=()
PORTS_PICKED=' '

say() { printf '%s\n' "$*"; }

complain() { printf '%s\n' "$*" >&2; }

fail() {
    complain "$*"
    exit 1
}

# --- beginning and end ---------------------------------------------------------------------------

# bad_usage TEXT: the arguments are wrong.
bad_usage() {
    complain "$1 (try --help)"
    exit 64
}

# other_argument ARGUMENT: one that the script does not take itself, which may ask for its `usage`.
other_argument() {
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        *) bad_usage "unknown argument: $1" ;;
    esac
}

# begin NAME: makes WORK_DIR and LOG_DIR, and has everything ended and removed however the script ends.
begin() {
    LOG_DIR=$(mktemp -d "${TMPDIR:-/tmp}/$1-logs.XXXXXX")
    WORK_DIR=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Servers that run as a user of their own have to get to their directory.
    chmod 711 "$WORK_DIR"
}

finish() {
    local status=$?
    # A second signal must not leave half of it behind.
    trap '' INT TERM HUP
    trap - EXIT
    set +e
    stop_children
    remove_policy_rc_d
    rm -rf -- "$WORK_DIR"
    case $status in
        0 | 129 | 130 | 143) rm -rf -- "$LOG_DIR" ;;
        # Nothing went so far as to log anything if it is empty.
        *) rmdir -- "$LOG_DIR" 2>/dev/null || complain "logs are kept in $LOG_DIR" ;;
    esac
    exit "$status"
}

# --- packages ------------------------------------------------------------------------------------

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and sudo is missing: $*"
    fi
}

# need_commands COMMAND=PACKAGE[,PACKAGE]...: installs the packages of the commands that are missing.
# `postgres` is looked for in the directory of PostgreSQL's server binaries.
need_commands() {
    local pair command packages missing=()
    for pair in "$@"; do
        command=${pair%%=*}
        IFS=, read -ra packages <<<"${pair#*=}"
        if [[ $command == postgres ]]; then
            find_postgres >/dev/null || missing+=("${packages[@]}")
        elif ! command -v "$command" >/dev/null; then
            missing+=("${packages[@]}")
        fi
    done
    if ((${#missing[@]} > 0)); then
        install_packages "${missing[@]}"
    fi
}

need_cargo() {
    command -v cargo >/dev/null ||
        fail "cargo is missing: install Rust as https://rustup.rs says, then run this again"
}

# This machine, as cargo calls it.
host_triple() { rustc -vV | sed -n 's/^host: //p'; }

install_packages() {
    is_debian || fail "these are missing, please install them: $* (only Debian and Ubuntu are done here)"
    local log="$LOG_DIR/apt-get.log"
    say "installing $* (apt-get)…"
    keep_services_stopped
    # Lists of some other source that cannot be fetched need not matter.
    apt_get update >"$log" 2>&1 || true
    if ! apt_get install --yes --no-install-recommends "$@" >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt-get could not install $*"
    fi
    remove_policy_rc_d
    hash -r
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get --quiet -o DPkg::Lock::Timeout=120 "$@" </dev/null
}

is_debian() {
    command -v apt-get >/dev/null && grep -Eq '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release
}

# For debootstrap: the mirror of this machine, if it is one of Debian; else it knows one.
debian_mirror() {
    # shellcheck disable=SC2016 # for apt-get
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' 'Created-By: Packages' 2>/dev/null |
        grep -v security | head -n 1
}

# Debian starts a server as soon as it is installed, unless this file forbids it. One that is there
# already is somebody's decision and stays as it is.
keep_services_stopped() {
    local file=/usr/sbin/policy-rc.d
    if [[ ! -e $file ]]; then
        POLICY_RC_D=$file
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$file" >/dev/null
        as_root chmod 755 "$file"
        say "  their system services are not started now; only private ones are used here"
    fi
}

remove_policy_rc_d() {
    if [[ -n $POLICY_RC_D ]]; then
        as_root rm -f -- "$POLICY_RC_D"
        POLICY_RC_D=''
    fi
}

# Where the tools go that are installed here: cargo's, and each of pip's in a directory of its own.
TOOLS="${CARGO_TARGET_DIR:-$PWD/target}/tools"
export PATH="$PATH:$TOOLS/bin"

# cargo_tool NAME [VERSION]: builds a missing one; without optimisation, which takes a third of the time.
cargo_tool() {
    command -v "$1" >/dev/null && return
    say "installing $1 into $TOOLS (cargo, some minutes)…"
    run_child "$1" env CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install "$1" ${2:+--version "$2"} --locked --debug --quiet --root "$TOOLS"
}

# pip_tool NAME VERSION: installs it as TOOLS/NAME/bin/NAME, unless that version is there.
pip_tool() {
    local home="$TOOLS/$1"
    [[ ! -e $home/$2 ]] || return 0
    say "installing $1 $2 into $home (pip)…"
    rm -rf -- "$home"
    if ! make_pip_environment "$home" "$1==$2" >"$LOG_DIR/pip.log" 2>&1; then
        tail -n 5 "$LOG_DIR/pip.log" >&2
        return 1
    fi
    touch "$home/$2"
}

make_pip_environment() {
    # Debian's Python can make no environment without a package of its own.
    python3 -c 'import ensurepip' || (install_packages python3-venv) || return
    python3 -m venv "$1" && run_child pip "$1/bin/pip" install --quiet --disable-pip-version-check "$2"
}

# --- tests ---------------------------------------------------------------------------------------

# Lets tests skip what this machine has not or does not allow; without a list of it they fail instead.
list_skipped() { export TEST_SKIPPED="$WORK_DIR/skipped"; }

show_skipped() {
    if [[ -s $TEST_SKIPPED ]]; then
        say '── SKIPPED, for what this machine has not or does not allow'
        sed 's/^/   /' "$TEST_SKIPPED"
    fi
}

# --- processes -----------------------------------------------------------------------------------

# start_child VARIABLE NAME USER STOP_SIGNAL COMMAND...: starts COMMAND with its output in
# LOG_DIR/NAME.log (its standard output in LOG_DIR/NAME.out, if `split` is set) and puts its process
# id into VARIABLE. An empty USER is the present one.
start_child() {
    local -n child_pid=$1
    local name=$2 user=$3 signal=$4
    shift 4
    local prefix=()
    as_user_prefix "$user"
    local out="$LOG_DIR/$name.log"
    [[ -z ${split:-} ]] || out="$LOG_DIR/$name.out"
    # A session of its own: Ctrl-C is for the script, which ends its children in order.
    (cd / && exec setsid "${prefix[@]}" "$@") </dev/null 2>>"$LOG_DIR/$name.log" >>"$out" &
    child_pid=$!
    remember_child "$child_pid" "$name" "$signal"
}

# run_child NAME COMMAND...: waits for COMMAND, here and with its output here, but so that a signal to
# the script need not wait for it too.
run_child() {
    local name=$1 prefix=() pid status=0
    shift
    as_user_prefix ''
    (exec setsid "${prefix[@]}" "$@") </dev/null &
    pid=$!
    remember_child "$pid" "$name" TERM
    wait "$pid" || status=$?
    forget_child "$pid"
    return "$status"
}

remember_child() {
    CHILDREN+=("$1")
    CHILD_NAMES[$1]=$2
    CHILD_SIGNALS[$1]=$3
}

# Sets `prefix`: changes to USER if one is given, and then has the kernel kill the process should the
# script be killed. In that order: a change of user clears the latter.
as_user_prefix() {
    local user=$1
    prefix=()
    if command -v setpriv >/dev/null && setpriv --pdeathsig KILL true 2>/dev/null; then
        prefix=(setpriv)
        [[ -z $user ]] || prefix+=(--reuid "$user" --regid "$(id -g "$user")" --init-groups)
        prefix+=(--pdeathsig KILL)
    elif [[ -n $user ]]; then
        prefix=(runuser -u "$user" --)
    fi
}

# The first of these users that exists, if we are root; else none, which means ourselves.
server_user() {
    ((EUID == 0)) || return 0
    local user
    for user in "$@"; do
        if id -u "$user" >/dev/null 2>&1; then
            printf '%s' "$user"
            return 0
        fi
    done
    fail "servers do not run as root, and none of these users exists: $*"
}

as_server_user() {
    local user=$1
    shift
    local prefix=()
    as_user_prefix "$user"
    (cd / && exec "${prefix[@]}" "$@")
}

# signal_child PID SIGNAL: to its whole group, if it has made its own yet.
signal_child() {
    kill -s "$2" -- "-$1" 2>/dev/null || kill -s "$2" "$1" 2>/dev/null || true
}

is_running() { [[ -n ${1:-} ]] && kill -0 "$1" 2>/dev/null; }

# await_end PID SECONDS: fails if it still runs after that.
await_end() {
    local tenths=$(($2 * 10))
    while is_running "$1"; do
        ((tenths-- > 0)) || return 1
        sleep 0.1
    done
}

# stop_child PID SECONDS: asks it to end, makes it end after SECONDS; its exit status.
stop_child() {
    local pid=$1 status=0
    signal_child "$pid" "${CHILD_SIGNALS[$pid]}"
    if ! await_end "$pid" "$2"; then
        complain "${CHILD_NAMES[$pid]:-process $pid} did not stop within $2 s, killing it"
        kill_tree "$pid"
    fi
    wait "$pid" 2>/dev/null || status=$?
    forget_child "$pid"
    return "$status"
}

# Stopped first, a process cannot start more while its children are listed.
kill_tree() {
    kill -STOP "$1" 2>/dev/null || return 0
    local children
    children=$(cat "/proc/$1/task/"*/children 2>/dev/null || true)
    # shellcheck disable=SC2086 # a list
    kill -KILL "$1" $children 2>/dev/null || true
}

forget_child() {
    local pid kept=()
    for pid in "${CHILDREN[@]}"; do
        [[ $pid == "$1" ]] || kept+=("$pid")
    done
    CHILDREN=("${kept[@]}")
}

# All at once, as one may wait for another.
stop_children() {
    local pid
    for pid in "${CHILDREN[@]}"; do
        signal_child "$pid" "${CHILD_SIGNALS[$pid]}"
    done
    for pid in "${CHILDREN[@]}"; do
        await_end "$pid" 10 || kill_tree "$pid"
        wait "$pid" 2>/dev/null
    done
    CHILDREN=()
    forget_postgres
}

# check_children PID...: fails, with the end of its log, if one of them ended by itself.
check_children() {
    local pid name status=0
    for pid in "$@"; do
        if ! is_running "$pid"; then
            wait "$pid" 2>/dev/null || status=$?
            name=${CHILD_NAMES[$pid]}
            show_log "$name"
            fail "$name ended unexpectedly (exit status $status)"
        fi
    done
}

show_log() {
    local file="$LOG_DIR/$1.log"
    complain "--- the end of $file"
    tail -n 20 "$file" >&2 || true
    complain '---'
}

# --- ports ---------------------------------------------------------------------------------------

# pick_port VARIABLE: a TCP port of 127.0.0.1 that nobody uses, below those that the kernel gives to
# clients, and not one picked before.
pick_port() {
    local -n picked=$1
    local try
    for try in {1..200}; do
        picked=$((20000 + RANDOM % 12000))
        if [[ $PORTS_PICKED != *" $picked "* ]] && ! port_answers "$picked"; then
            PORTS_PICKED+="$picked "
            return 0
        fi
    done
    fail "no free TCP port found in $try attempts"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# await_port PORT PID SECONDS: until PID listens there.
await_port() {
    local tenths=$(($3 * 10))
    until port_answers "$1"; do
        check_children "$2"
        if ((tenths-- <= 0)); then
            show_log "${CHILD_NAMES[$2]}"
            fail "${CHILD_NAMES[$2]} does not answer on port $1"
        fi
        sleep 0.1
    done
}

# --- Mosquitto -----------------------------------------------------------------------------------

# start_mosquitto: sets MQTT_PORT and MOSQUITTO_PID. Started again, it has its port and its sessions.
start_mosquitto() {
    local dir="$WORK_DIR/mosquitto" user
    user=$(server_user mosquitto nobody)
    if [[ ! -d $dir ]]; then
        pick_port MQTT_PORT
        mkdir -m 700 "$dir"
        # Its defaults would keep 20 messages in flight, drop a session's queue beyond 1000, and
        # forget all of it with the process.
        cat >"$dir/mosquitto.conf" <<CONF
listener $MQTT_PORT 127.0.0.1
allow_anonymous true
persistence true
persistence_location $dir/
autosave_interval 30
max_inflight_messages 5000
max_queued_messages 0
set_tcp_nodelay true
log_dest stderr
CONF
        [[ -z $user ]] || chown -R "$user" "$dir"
    fi
    start_child MOSQUITTO_PID mosquitto "$user" TERM "$(command -v mosquitto)" -c "$dir/mosquitto.conf"
    await_port "$MQTT_PORT" "$MOSQUITTO_PID" 10
}

# --- PostgreSQL ----------------------------------------------------------------------------------

# The directory with the newest server binaries; fails without any.
find_postgres() {
    local dir
    dir=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
    if [[ ! -x $dir ]] && command -v pg_config >/dev/null; then
        dir=$(pg_config --bindir)/postgres
    fi
    [[ -x $dir ]] || return 1
    dirname "$dir"
}

# create_postgres on|off: an empty cluster with that `fsync`. Sets DATABASE_URL and what
# start_postgres needs.
create_postgres() {
    local fsync=$1
    PG_BIN=$(find_postgres) || fail "no PostgreSQL server binaries found"
    PG_USER=$(server_user postgres nobody)
    PG_HOME="$WORK_DIR/postgres"
    PG_DATA="$PG_HOME/data"
    pick_port PG_PORT
    # Not `trust`: whoever else is on this machine could run commands as the server's user.
    PG_PASSWORD=$(random_secret)
    mkdir -m 700 "$PG_HOME"
    printf '%s\n' "$PG_PASSWORD" >"$PG_HOME/password"
    [[ -z $PG_USER ]] || chown -R "$PG_USER" "$PG_HOME"
    as_server_user "$PG_USER" test -r "$PG_HOME/password" ||
        fail "user ${PG_USER:-$USER} cannot reach $WORK_DIR: set TMPDIR to a directory open to it"
    if ! as_server_user "$PG_USER" "$PG_BIN/initdb" -D "$PG_DATA" -U iot -E UTF8 --locale=C \
        --auth=scram-sha-256 --pwfile="$PG_HOME/password" >"$LOG_DIR/initdb.log" 2>&1; then
        show_log initdb
        fail "initdb failed"
    fi
    # Shared memory as files of this directory, so that none is left over after a kill.
    cat >>"$PG_DATA/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PG_PORT
unix_socket_directories = '$PG_HOME'
fsync = $fsync
dynamic_shared_memory_type = mmap
CONF
    # shellcheck disable=SC2034 # for the sourcing script
    DATABASE_URL="postgres://iot:$PG_PASSWORD@127.0.0.1:$PG_PORT/iotdb"
}

# launch_postgres: sets POSTGRES_PID; does not wait until it answers.
launch_postgres() {
    # INT is its fast shutdown; TERM would wait for every client to leave.
    start_child POSTGRES_PID postgresql "$PG_USER" INT "$PG_BIN/postgres" -D "$PG_DATA"
}

# start_postgres: launches it, waits until it answers, and makes the database if it is not there.
start_postgres() {
    launch_postgres
    await_postgres
    if [[ -z $(query postgres "select 1 from pg_database where datname = 'iotdb'") ]]; then
        query postgres 'create database iotdb' >/dev/null
    fi
}

await_postgres() {
    local tenths=600
    until query postgres 'select 1' >/dev/null 2>&1; do
        check_children "$POSTGRES_PID"
        if ((tenths-- <= 0)); then
            show_log postgresql
            fail "PostgreSQL does not answer"
        fi
        sleep 0.1
    done
}

# query DATABASE SQL: the bare values.
query() {
    PGPASSWORD=$PG_PASSWORD PGCONNECT_TIMEOUT=5 "$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$PG_PORT" -U iot -d "$1" -c "$2"
}

# kill_postgres: as a power cut ends it, every process at once. It can be started again after.
kill_postgres() {
    kill_tree "$POSTGRES_PID"
    wait "$POSTGRES_PID" 2>/dev/null || true
    forget_child "$POSTGRES_PID"
    forget_postgres
}

# Removes what a killed PostgreSQL leaves behind: its pid file and the small shared memory segment
# (line 7 there: key and id) that keeps a second server off the same data.
forget_postgres() {
    local file="${PG_DATA:-}/postmaster.pid" segment
    [[ -n ${PG_DATA:-} && -e $file ]] || return 0
    segment=$(awk 'NR == 7 { print $2 }' "$file")
    if [[ -n $segment ]]; then
        ipcrm -m "$segment" 2>/dev/null || true
    fi
    rm -f -- "$file"
}

# --- text ----------------------------------------------------------------------------------------

# with_commas NUMBER: 1234567 as 1,234,567.
with_commas() {
    local number=$1 grouped=''
    while [[ $number =~ ^(-?[0-9]+)([0-9]{3})$ ]]; do
        number=${BASH_REMATCH[1]}
        grouped=",${BASH_REMATCH[2]}$grouped"
    done
    printf '%s' "$number$grouped"
}

# 128 random bits, as a word.
random_secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# http_get PORT PATH: the body of a successful answer of 127.0.0.1.
http_get() {
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --max-time 5 "http://127.0.0.1:$1$2"
        return
    fi
    local answer
    # shellcheck disable=SC2016 # for the inner shell
    answer=$(timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" &&
        printf "GET %s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n" "$1" >&3 && cat <&3' "$1" "$2") || return
    [[ $answer == HTTP/1.?\ 200* ]] || return 1
    printf '%s\n' "${answer#*$'\r\n\r\n'}"
}
