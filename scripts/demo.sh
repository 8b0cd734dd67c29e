#!/usr/bin/env bash
# The whole system at work: simulated devices → Mosquitto → ingestor → WAL → PostgreSQL → REST.
# Ends with a comparison of what was published and what is in the table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/demo.sh [--seconds N] [--rate R] [--outage] [--mapping NAME]

Installs PostgreSQL and Mosquitto if they are missing (Debian, Ubuntu), builds the release binaries,
starts private servers on free ports, and runs the simulator and the ingestor against them.

  --seconds N   publish for N seconds (default: until Ctrl-C)
  --rate R      messages per second, or `max` for as many as are accepted (default 2500)
  --outage      kill PostgreSQL in the middle third of the time, then start it again
                (without --seconds: 60 seconds)
  --mapping NAME
                devices that publish in their own shape, which a recipe of deploy/mappings maps: zigbee2mqtt,
                tasmota, esphome, the-things-stack, chirpstack, shelly-gen2, … (`simulator --help` has all)
  --help        this text

Ctrl-C ends it in order, a second one at once. Exits 1 if a reading was lost.
TEXT
}

SECONDS_WANTED='' RATE=2500 OUTAGE='' MAPPING='' TABLES=(telemetry)

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --seconds | --rate | --mapping)
                (($# > 1)) || bad_usage "$1 needs a value"
                case $1 in
                    --seconds) SECONDS_WANTED=$2 ;;
                    --rate) RATE=$2 ;;
                    --mapping) MAPPING=$2 ;;
                esac
                shift
                ;;
            --seconds=*) SECONDS_WANTED=${1#*=} ;;
            --rate=*) RATE=${1#*=} ;;
            --mapping=*) MAPPING=${1#*=} ;;
            --outage) OUTAGE=wanted ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
    [[ -z $SECONDS_WANTED || $SECONDS_WANTED =~ ^[1-9][0-9]{0,6}$ ]] ||
        bad_usage "--seconds: expected a whole number from 1, found '$SECONDS_WANTED'"
    [[ $RATE == max || $RATE =~ ^[1-9][0-9]{0,5}$ ]] ||
        bad_usage "--rate: expected 1 to 999999 or max, found '$RATE'"
    [[ -z $MAPPING ]] || find_recipe
    if [[ -n $OUTAGE && -z $SECONDS_WANTED ]]; then
        SECONDS_WANTED=60
    fi
    if [[ -n $OUTAGE ]] && ((SECONDS_WANTED < 3)); then
        bad_usage "--outage needs at least 3 seconds"
    fi
}

# By the names that the simulator has for it.
find_recipe() {
    case $MAPPING in
        zigbee) MAPPING=zigbee2mqtt ;;
        lorawan) MAPPING=the-things-stack ;;
        shelly) MAPPING=shelly-gen2 ;;
    esac
    [[ $MAPPING =~ ^[a-z0-9-]+$ && -e deploy/mappings/$MAPPING.toml ]] ||
        bad_usage "--mapping: there is no recipe '$MAPPING' in deploy/mappings"
    local table
    while read -r table; do
        TABLES+=("$table")
    done < <(sed -n 's/^table *= *"\([a-z0-9_]*\)".*/\1/p' "deploy/mappings/$MAPPING.toml" | grep -vx telemetry | sort -u)
}

prepare() {
    need_cargo
    # The compiler is for the crates with C in them.
    need_commands cc=gcc,libc6-dev postgres=postgresql mosquitto=mosquitto
    say 'building the release binaries (cargo)…'
    run_child cargo cargo build --release --locked --bin ingestor --bin simulator ||
        fail "cargo build failed"
    BIN_DIR="${CARGO_TARGET_DIR:-$PWD/target}/release"
    [[ $BIN_DIR == /* ]] || BIN_DIR="$PWD/$BIN_DIR"
}

start_servers() {
    say 'starting a private PostgreSQL (fsync on) and a private Mosquitto…'
    create_postgres on
    start_postgres
    query iotdb "$(<deploy/postgres/partitioned.sql)" >/dev/null
    start_mosquitto
    pick_port HTTP_PORT
    start_ingestor
    await_ready
    say "  API      http://127.0.0.1:$HTTP_PORT/api/v1/telemetry"
    say "  metrics  http://127.0.0.1:$HTTP_PORT/metrics"
    say "  health   http://127.0.0.1:$HTTP_PORT/health/ready"
    say "  page     http://127.0.0.1:$HTTP_PORT/"
    say "  logs     $LOG_DIR"
}

# Only what is named here reaches the binaries: a setting left in the shell must not.
clean_env() {
    local name unset=()
    for name in $(compgen -e); do
        case $name in
            MQTT_* | DATABASE_* | HTTP_ADDR | BATCH_* | FLUSH_* | CHANNEL_* | WAL_* | DEAD_LETTER_* | \
                ADMIN_TOKEN* | VALIDATE_* | SHUTDOWN_* | LOG_FORMAT | ROCKET_* | NUM_DEVICES | \
                PUBLISH_INTERVAL_MS | INVALID_RATIO | SIMULATE | MESSAGE_COUNT | MAX_INFLIGHT | PROGRESS_*)
                unset+=(-u "$name")
                ;;
        esac
    done
    clean_env=(env "${unset[@]}")
}

start_ingestor() {
    mkdir "$WORK_DIR/wal"
    local mapping=()
    [[ -z $MAPPING ]] || mapping=(ROCKET_CONFIG="$PWD/deploy/mappings/$MAPPING.toml")
    start_child INGESTOR_PID ingestor '' TERM "${clean_env[@]}" "${mapping[@]}" DATABASE_URL="$DATABASE_URL" \
        MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" MQTT_CLIENT_ID=iot-demo \
        HTTP_ADDR="127.0.0.1:$HTTP_PORT" WAL_DIR="$WORK_DIR/wal" "$BIN_DIR/ingestor"
}

await_ready() {
    local tenths=300
    until http_get "$HTTP_PORT" /health/ready >/dev/null 2>&1; do
        check_children "$INGESTOR_PID"
        if ((tenths-- <= 0)); then
            show_log ingestor
            fail "the ingestor is not ready after 30 s"
        fi
        sleep 0.1
    done
}

start_simulator() {
    local load
    if [[ $RATE == max ]]; then
        load=(NUM_DEVICES=1000 PUBLISH_INTERVAL_MS=0 MAX_INFLIGHT=1000)
        say 'publishing as fast as accepted, 1,000 devices'
    else
        load=(NUM_DEVICES="$RATE" PUBLISH_INTERVAL_MS=1000 MAX_INFLIGHT=1000)
        say "publishing $(with_commas "$RATE") msg/s: as many devices, a message a second each"
    fi
    if [[ -n $MAPPING ]]; then
        load+=(SIMULATE="$MAPPING")
        say "  in the shape of deploy/mappings/$MAPPING.toml, each message a row of ${TABLES[-1]}"
    fi
    split=yes start_child SIMULATOR_PID simulator '' TERM "${clean_env[@]}" MQTT_BROKER=127.0.0.1 \
        MQTT_PORT="$MQTT_PORT" PROGRESS_INTERVAL_MS=100 "${load[@]}" "$BIN_DIR/simulator"
}

# --- what is shown -------------------------------------------------------------------------------

PUBLISHED=0 ACKED=0 RECEIVED=0 PENDING=0 STORED=0 DB_UP=0 PER_SECOND=0
LAST_ACKED=0 LAST_MILLIS=0

millis() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

# The simulator is asked last: what is stored was published before.
read_counts() {
    read_metrics
    local line now
    line=$(tail -n 20 "$LOG_DIR/simulator.log" | grep -o 'published [0-9]* · acked [0-9]*' | tail -n 1) || true
    if [[ $line =~ ([0-9]+)\ ·\ acked\ ([0-9]+) ]]; then
        PUBLISHED=${BASH_REMATCH[1]} ACKED=${BASH_REMATCH[2]}
    fi
    now=$(millis)
    if ((LAST_MILLIS > 0 && now > LAST_MILLIS)); then
        PER_SECOND=$(((ACKED - LAST_ACKED) * 1000 / (now - LAST_MILLIS)))
    fi
    LAST_MILLIS=$now LAST_ACKED=$ACKED
}

# One answer, so that the figures belong together; without an answer the old ones stay.
read_metrics() {
    local figures
    figures=$(http_get "$HTTP_PORT" /metrics 2>/dev/null | awk '
        { value[$1] = $2 }
        END {
            printf "%d %d %d %d\n", value["ingestor_messages_total"],
                value["ingestor_wal_pending_records"], value["ingestor_db_inserts_total"],
                value["ingestor_db_up"]
        }') || return 0
    read -r RECEIVED PENDING STORED DB_UP <<<"$figures"
}

# show_counts LABEL: in place on a terminal, a line every five seconds elsewhere.
show_counts() {
    local database=up line
    ((DB_UP == 1)) || database=DOWN
    line="$1 published $(with_commas "$PUBLISHED") · acked $(with_commas "$ACKED")"
    line+=" ($(with_commas "$PER_SECOND") msg/s) · WAL pending $(with_commas "$PENDING")"
    line+=" · stored $(with_commas "$STORED") · database $database"
    if [[ -t 1 ]]; then
        local columns
        columns=$(stty size 2>/dev/null </dev/tty | cut -d ' ' -f 2) || true
        # A line that wraps could not be written over; a terminal that knows no width says 0.
        [[ $columns =~ ^[1-9] ]] || columns=120
        printf '\r%s\e[K' "${line:0:$((columns - 1))}"
    elif ((TICK % 5 == 0)); then
        say "$line"
    fi
}

# news TEXT: a line of its own above the live one.
news() {
    if [[ -t 1 ]]; then
        printf '\r\e[K'
    fi
    say "$*"
}

# --- the course of it ----------------------------------------------------------------------------

INTERRUPTED='' TICK=0

on_interrupt() {
    [[ -z $INTERRUPTED ]] || exit 130
    INTERRUPTED=yes
}

publish() {
    local down_at=-1 up_at=-1 start elapsed label
    if [[ -n $OUTAGE ]]; then
        down_at=$((SECONDS_WANTED / 3)) up_at=$((SECONDS_WANTED * 2 / 3))
    fi
    start_simulator
    start=$(millis)
    trap on_interrupt INT
    while [[ -z $INTERRUPTED ]]; do
        sleep 1 || true
        TICK=$((TICK + 1)) elapsed=$((($(millis) - start) / 1000))
        read_counts
        label="${elapsed} s"
        [[ -z $SECONDS_WANTED ]] || label="${elapsed}/${SECONDS_WANTED} s"
        show_counts "$label:"
        if [[ -n $SECONDS_WANTED ]] && ((elapsed >= SECONDS_WANTED)); then
            break
        fi
        check_children "$INGESTOR_PID" "$SIMULATOR_PID" "$MOSQUITTO_PID"
        if [[ $OUTAGE == wanted ]] && ((elapsed >= down_at)); then
            OUTAGE=now
            kill_postgres
            news "$elapsed s: PostgreSQL killed (SIGKILL); the readings wait in the WAL"
        elif [[ $OUTAGE == now ]] && ((elapsed >= up_at)); then
            OUTAGE=over
            launch_postgres
            news "$elapsed s: PostgreSQL started again"
        fi
        [[ $OUTAGE == now ]] || check_children "$POSTGRES_PID"
    done
}

stop_simulator() {
    local status=0
    news 'stopping the simulator…'
    stop_child "$SIMULATOR_PID" 10 || status=$?
    ((status == 0)) || { show_log simulator && fail "the simulator failed (exit status $status)"; }
    local summary
    summary=$(cat "$LOG_DIR/simulator.out")
    [[ $summary =~ ^published\ ([0-9]+)\ ·\ acked\ ([0-9]+)\ · ]] || fail "no summary: '$summary'"
    PUBLISHED=${BASH_REMATCH[1]} ACKED=${BASH_REMATCH[2]}
    say "  $summary"
    # The last progress line is older than the summary.
    printf '%s\n' "$summary" >>"$LOG_DIR/simulator.log"
}

# Until everything is stored, or nothing has moved for a minute.
drain() {
    local last='' quiet=0
    if [[ $OUTAGE == now ]]; then
        launch_postgres
        news 'PostgreSQL started again'
    fi
    say 'waiting until the WAL is drained…'
    while :; do
        read_counts
        TICK=$((TICK + 1))
        show_counts 'draining:'
        if ((PENDING == 0 && STORED >= PUBLISHED)); then
            break
        fi
        check_children "$INGESTOR_PID" "$MOSQUITTO_PID" "$POSTGRES_PID"
        if [[ "$RECEIVED $PENDING $STORED" == "$last" ]]; then
            quiet=$((quiet + 1))
        else
            quiet=0
        fi
        last="$RECEIVED $PENDING $STORED"
        if ((quiet >= 60)); then
            news "nothing has moved for 60 s, WAL pending $(with_commas "$PENDING")"
            return
        fi
        sleep 1 || true
    done
    news 'drained: WAL pending 0'
}

show_answers() {
    local path table="table=${TABLES[-1]}&"
    [[ -n $MAPPING ]] || table=''
    for path in "/api/v1/telemetry?${table}limit=2" "/api/v1/devices?${table}limit=1"; do
        say "\$ curl 'http://127.0.0.1:$HTTP_PORT$path'"
        # An answer that fails is to be seen, the comparison below still stands.
        say "$(http_get "$HTTP_PORT" "$path" 2>&1 || true)"
    done
}

stop_ingestor() {
    local status=0
    stop_child "$INGESTOR_PID" 15 || status=$?
    ((status == 0)) || { show_log ingestor && fail "the ingestor failed at its stop (exit status $status)"; }
}

compare() {
    local stored=0 lost table
    await_postgres
    for table in "${TABLES[@]}"; do
        stored=$((stored + $(query iotdb "select count(*) from \"$table\"")))
    done
    lost=$((PUBLISHED - stored))
    say "published $(with_commas "$PUBLISHED") · stored $(with_commas "$stored") · lost $(with_commas "$lost")"
    if ((lost != 0)); then
        show_log ingestor
        fail "published and stored differ; of the published, the broker acknowledged $(with_commas "$ACKED")"
    fi
}

main() {
    read_arguments "$@"
    begin iot-demo
    clean_env
    prepare
    start_servers
    publish
    stop_simulator
    drain
    show_answers
    stop_ingestor
    compare
}

main "$@"
