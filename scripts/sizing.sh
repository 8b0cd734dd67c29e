#!/usr/bin/env bash
# How much of the log a reading takes, measured, and how long an outage a gibibyte of it bridges.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/sizing.sh [--readings N]

Fills the log of a private ingestor without a database, from a private Mosquitto (installed if missing),
and prints bytes on disk a reading and hours of outage a GiB, as a table. Readings that arrive together
share a commit and cost less, so there is a row for messages that come one by one, as on an idle box, and
one each for few and for many at a time.

  --readings N   readings a row, a tenth of it where they come one by one (default 200000)
  --help         this text
TEXT
}

READINGS=200000
RATES=(10 100 1000 10000)

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --readings)
                [[ ${2:-} =~ ^[1-9][0-9]{3,8}$ ]] || bad_usage '--readings needs a number from 1000'
                READINGS=$2
                shift
                ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
}

prepare() {
    need_cargo
    need_commands cc=gcc,libc6-dev mosquitto=mosquitto
    say 'building the release binaries (cargo)…'
    run_child cargo cargo build --release --locked --quiet --bin ingestor --bin simulator ||
        fail "cargo build failed"
    BIN_DIR="${CARGO_TARGET_DIR:-$PWD/target}/release"
    [[ $BIN_DIR == /* ]] || BIN_DIR="$PWD/$BIN_DIR"
    start_mosquitto
    pick_port HTTP_PORT
}

# metrics NAME...: their values, of one answer.
metrics() {
    http_get "$HTTP_PORT" /metrics | awk -v names="$*" '
        { value[$1] = $2 }
        END { count = split(names, name, " "); for (i = 1; i <= count; i++) printf "%d ", value[name[i]]; print "" }'
}

# measure COUNT WINDOW MILLISECONDS: publishes COUNT readings of 500 devices, one each MILLISECONDS, or as
# fast as a window of WINDOW allows if that is 0. Sets BYTES (of a hundred readings) and SHARED (readings a
# commit).
measure() {
    local count=$1 window=$2 pause=$3 pending disk commits tenths=300
    rm -rf -- "$WORK_DIR/wal"
    start_child INGESTOR_PID ingestor '' TERM env -i DATABASE_URL=postgres://nobody@127.0.0.1:1/none \
        MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" MQTT_CLIENT_ID="sizing-$window-$pause" WAL_DIR="$WORK_DIR/wal" \
        WAL_MAX_BYTES=1099511627776 HTTP_ADDR="127.0.0.1:$HTTP_PORT" "$BIN_DIR/ingestor"
    until http_get "$HTTP_PORT" /health/ready >/dev/null 2>&1; do
        check_children "$INGESTOR_PID"
        ((tenths-- > 0)) || fail "the ingestor is not ready after 30 s"
        sleep 0.1
    done
    run_child simulator env -i MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" NUM_DEVICES=500 PUBLISH_INTERVAL_MS="$pause" \
        MAX_INFLIGHT="$window" MESSAGE_COUNT="$count" RUST_LOG=error PROGRESS_INTERVAL_MS=0 "$BIN_DIR/simulator" >/dev/null ||
        fail "the simulator failed"
    # What was acknowledged to the devices may still be on its way to the log.
    until read -r pending disk commits < <(metrics ingestor_wal_pending_records ingestor_wal_disk_bytes \
        ingestor_wal_commit_seconds_count) && ((pending == count)); do
        check_children "$INGESTOR_PID"
        sleep 0.1
    done
    BYTES=$((disk * 100 / pending)) SHARED=$(((pending + commits / 2) / commits))
    stop_child "$INGESTOR_PID" 20 || fail "the ingestor failed at its stop"
}

main() {
    local rate row
    read_arguments "$@"
    begin iot-sizing
    prepare
    row='| readings a commit | bytes a reading |'
    for rate in "${RATES[@]}"; do
        row+=" $(with_commas "$rate") msg/s |"
    done
    say ''
    say "$row"
    say "|$(printf -- '---:|%.0s' 1 2 "${RATES[@]}")"
    measure $((READINGS / 10)) 100 1000 && show
    measure "$READINGS" 20 0 && show
    measure "$READINGS" 1000 0 && show
}

# A row of what was measured.
show() {
    local row rate
    row="| $(with_commas "$SHARED") | $((BYTES / 100)) |"
    for rate in "${RATES[@]}"; do
        row+=" $(awk -v bytes="$BYTES" -v rate="$rate" 'BEGIN {
            hours = 1073741824 / (bytes / 100) / rate / 3600
            if (hours >= 48) printf "%d days", hours / 24
            else if (hours >= 2) printf "%d h", hours
            else printf "%d min", hours * 60
        }') |"
    done
    say "$row"
}

main "$@"
