# A whole Debian, booted in a container of its own network, with the service in it: shared by the tests
# that need one. To be sourced after tests/deploy/lib.sh.
# shellcheck shell=bash

SERVICE=iot-ingestor
ROOT=/run/edge
PUBLISHED=0

# --- the machine ---------------------------------------------------------------------------------

# What is written goes to memory, the tree itself stays as it is.
make_machine() {
    # Where nspawn leaves something too, which is not for the host.
    mount -t tmpfs -o size=2g tmpfs /run
    mkdir /run/layers
    layer "$MACHINE_TREE" "$ROOT"
}

# What a build in it needs.
give_sources() {
    layer "$PWD" "$ROOT/src"
    # For a build in it: what is built already, and Rust.
    layer "${BIN_DIR%/release}" "$ROOT/src/target"
    layer "$(rustc --print sysroot)" "$ROOT/opt/rust"
    layer "${CARGO_HOME:-$HOME/.cargo}/registry" "$ROOT/root/.cargo/registry"
    ln -s /opt/rust/bin "$ROOT/root/.cargo/bin"
}

# layer DIRECTORY WHERE: it can be read and changed there, and stays as it is.
layer() {
    local changes
    changes=$(mktemp -d /run/layers/XXXXXX)
    mkdir -p "$changes"/{upper,work} "$2"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$changes/upper,workdir=$changes/work" "$2"
}

boot() {
    start_child NSPAWN_PID machine '' RTMIN+4 systemd-nspawn --quiet --boot --directory="$ROOT" \
        --machine=edge --register=no --keep-unit --private-network --resolv-conf=off --timezone=off \
        --link-journal=no --bind-ro="$BIN_DIR:/bin-under-test" --console=pipe
    await_boot
}

# A request of the machine to be started again ends nspawn with 133.
reboot() {
    local status=0
    # It may be gone before it has answered.
    inside systemctl reboot 2>/dev/null || true
    must 'the machine goes down' await_end "$NSPAWN_PID" 60
    wait "$NSPAWN_PID" || status=$?
    forget_child "$NSPAWN_PID"
    equal 133 "$status" 'the machine asks to be started again'
    boot
}

# Sets LEADER, the machine's process 1.
await_boot() {
    LEADER=''
    within 60 "the machine boots" is_up
}

is_up() {
    local child children
    read -ra children < <(cat "/proc/$NSPAWN_PID/task/"*/children)
    for child in "${children[@]}"; do
        if [[ $(cat "/proc/$child/comm") == systemd ]]; then
            LEADER=$child
            inside systemctl is-active multi-user.target && return
        fi
    done
    return 1
}

# inside COMMAND...
inside() {
    nsenter --target "$LEADER" --mount --uts --ipc --net --pid --cgroup \
        env -C / -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

property() { inside systemctl show --property "$1" --value "$SERVICE"; }

main_pid() { property MainPID; }

is_active() { [[ $(property ActiveState) == active ]]; }

metric() {
    inside busybox wget -q -O - http://127.0.0.1:8080/metrics | awk -v name="$1" '$1 == name { print $2; found = 1 } END { exit !found }'
}

metric_is() { [[ $(metric "$1") == "$2" ]]; }

stored() { ask 'select count(*) from telemetry'; }

# ask QUERY
ask() { inside runuser -u postgres -- psql -X -A -t -d iotdb -c "$1"; }

all_is_stored() {
    local stored
    stored=$(stored) && say "published $PUBLISHED, stored $stored" && ((stored == PUBLISHED))
}

# The service of Debian is a name for those of its clusters, and gone before they are.
stop_postgresql() { inside systemctl stop postgresql 'postgresql@*'; }

journal_has() { inside journalctl --no-pager -u "$SERVICE" --since "@$1" | grep -F "$2"; }

# --- load ----------------------------------------------------------------------------------------

# publish COUNT: all of it is acknowledged when this returns.
publish() {
    begin_publishing "$1"
    end_publishing
}

# begin_publishing COUNT: 100 devices, ten messages a second each.
begin_publishing() {
    inside env MESSAGE_COUNT="$1" NUM_DEVICES=100 PUBLISH_INTERVAL_MS=100 RUST_LOG=error \
        /bin-under-test/simulator >"$WORK_DIR/published" 2>"$WORK_DIR/simulator.log" &
    SIMULATOR_PID=$!
}

# stop_publishing: before its end, in order.
stop_publishing() {
    inside pkill -TERM -x simulator
    end_publishing
}

end_publishing() {
    wait "$SIMULATOR_PID" || broken "the simulator failed: $(cat "$WORK_DIR/simulator.log")"
    [[ $(cat "$WORK_DIR/published") =~ ^published\ ([0-9]+)\ ·\ acked\ ([0-9]+) ]] ||
        broken "no summary of the simulator"
    equal "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "acknowledged messages"
    PUBLISHED=$((PUBLISHED + BASH_REMATCH[1]))
}

nothing_is_lost() { within 60 'everything is stored' all_is_stored; }
