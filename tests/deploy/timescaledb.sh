#!/usr/bin/env bash
# The table as a hypertable of a real TimescaleDB, which Debian has from trixie on: made of a plain one while
# readings come in, asked, killed at, and rid of what is old.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh
# shellcheck source=tests/deploy/machine.sh
source tests/deploy/machine.sh

MACHINE_TREE=${TIMESCALE_TREE:?run scripts/test-deploy.sh}
TOKEN=a-token-of-sixteen-characters
CHUNKS="select count(*) from show_chunks('telemetry')"

start_servers() {
    inside cp /src/deploy/mosquitto/limits.conf /etc/mosquitto/conf.d/
    inside sh -c "echo \"shared_preload_libraries = 'timescaledb'
        timescaledb.telemetry_level = off\" >/etc/postgresql/17/main/conf.d/timescaledb.conf"
    inside systemctl start postgresql mosquitto
    within 30 'PostgreSQL answers' inside runuser -u postgres -- psql -q -c 'select 1'
    inside runuser -u postgres -- psql -q -c "create role iot login password 'a-password'"
    inside runuser -u postgres -- psql -q -c 'create database iotdb owner iot'
    ask 'create extension timescaledb' >/dev/null
}

start_service() {
    inside install -D -m 600 /dev/stdin /etc/iot-ingestor/secrets/database-url <<<'postgres://iot:a-password@localhost/iotdb'
    inside install -m 600 /dev/stdin /etc/iot-ingestor/secrets/admin-token <<<"$TOKEN"
    inside /src/scripts/install-service.sh --binary /bin-under-test/ingestor >"$LOG_DIR/install.log" 2>&1 ||
        broken "install-service.sh: $(cat "$LOG_DIR/install.log")"
    within 30 'it is ready' inside ingestor health --ready
}

# set_setting LINE: and starts again.
set_setting() {
    inside sh -c "echo '$1' >>/etc/iot-ingestor/ingestor.env"
    inside systemctl restart "$SERVICE"
    within 30 'it is ready' inside ingestor health --ready
}

as_owner() { inside env PGPASSWORD=a-password psql -X -A -t -h localhost -U iot -d iotdb -c "$1"; }

# get PATH [METHOD]
get() {
    inside busybox wget -q -O - --header "Authorization: Bearer $TOKEN" ${2:+--post-data ''} "http://127.0.0.1:8080$1"
}

schema() { inside env DATABASE_URL=postgres://iot:a-password@localhost/iotdb ingestor schema "$@" 2>&1; }

becomes_one() {
    rule 'a plain table becomes a hypertable while readings come in, and none is lost'
    publish 200
    nothing_is_lost
    begin_publishing 600000
    within 10 'it takes messages in' stored_more_than 400
    as_owner "select create_hypertable('telemetry', 'ts', chunk_time_interval => interval '1 day', migrate_data => true)" \
        >"$LOG_DIR/hypertable.log" 2>&1 || broken "create_hypertable: $(cat "$LOG_DIR/hypertable.log")"
    within 20 'rows go on coming in' stored_more_than "$(($(stored) + 500))"
    stop_publishing
    nothing_is_lost
    must 'there are chunks' test "$(ask "$CHUNKS")" -ge 1
    schema show >"$LOG_DIR/show.log" || broken "schema show: $(cat "$LOG_DIR/show.log")"
    must 'it is called what it is' grep -q 'a hypertable of TimescaleDB' "$LOG_DIR/show.log"
    must_fail 'it would be partitioned' schema partition
    must_fail 'something was refused' journal_has "$BEGAN" '"level":"ERROR"'
    holds
}

stored_more_than() { (($(stored) > $1)); }

survives() {
    rule 'killed under load, and with PostgreSQL away, it loses and doubles nothing'
    begin_publishing 600000
    for _ in 1 2 3; do
        within 10 'it takes messages in' stored_more_than "$(($(stored) + 200))"
        inside systemctl kill --signal KILL "$SERVICE"
        within 30 'it is ready again' inside ingestor health --ready
    done
    stop_postgresql
    within 10 'they wait' at_least_pending 300
    inside systemctl start postgresql
    stop_publishing
    nothing_is_lost
    equal 0 "$(ask 'select count(*) - count(distinct (device_id, ts)) from telemetry')" 'doubled'
    holds
}

at_least_pending() { (($(metric ingestor_wal_pending_records) >= $1)); }

is_asked() {
    rule 'what is late goes into chunks of its time, and the API answers as of any table'
    local days
    # A reading a day, and one of the year 2000.
    for days in {1..20}; do
        printf '{"device_id":"old","timestamp":"%s","temperature":20.5,"humidity":50,"battery":90}\n' \
            "$(date --utc --date="$days days ago" +%FT%T.000Z)"
    done >"$WORK_DIR/late"
    printf '{"device_id":"old","timestamp":"2000-01-01T00:00:00Z","temperature":20.5,"humidity":50,"battery":90}\n' >>"$WORK_DIR/late"
    inside mosquitto_pub -q 1 -t telemetry/old -l <"$WORK_DIR/late"
    PUBLISHED=$((PUBLISHED + 21))
    nothing_is_lost
    must 'each day has a chunk' test "$(ask "$CHUNKS")" -ge 21
    equal 21 "$(get '/api/v1/telemetry?device_id=old&limit=1000' | jq '.data | length')" 'rows of the device'
    equal 3 "$(get "/api/v1/telemetry?device_id=old&limit=1000&start=$(date --utc --date='3 days ago - 12 hours' +%FT%TZ)" |
        jq '.data | length')" 'rows of three days'
    equal 101 "$(get '/api/v1/devices?limit=1000' | jq '.data | length')" 'devices'
    local all='' page next=''
    for _ in {1..40}; do
        page=$(get "/api/v1/telemetry?limit=500${next:+&cursor=$next}")
        all+=$(jq -r '.data[] | .device_id + " " + .timestamp' <<<"$page")$'\n'
        next=$(jq -r '.next_cursor // empty' <<<"$page")
        [[ -n $next ]] || break
    done
    equal '' "$next" 'what is left after all pages'
    equal "$PUBLISHED" "$(grep -c . <<<"$all")" 'rows of all pages'
    equal "$PUBLISHED" "$(grep . <<<"$all" | sort -u | grep -c .)" 'different ones'
    holds
}

forgets() {
    rule 'chunks that are old go by drop_chunks, once somebody has said that so many may, and what is not stays'
    local report before
    set_setting RETENTION_DAYS=10
    within 60 'it has looked' looked
    report=$(get /admin/retention)
    equal hypertable "$(jq -r '.due[0].division' <<<"$report")" 'how the table is divided'
    must 'so many are held up' jq -e '.held_up' <<<"$report" >/dev/null
    equal 0 "$(metric ingestor_retention_removed_partitions_total)" 'what has gone by itself'
    before=$(stored)
    get /admin/retention/run post >"$LOG_DIR/run.log" || broken "it was not run: $report"
    within 60 'they are gone' is_gone
    # The chunk of the tenth day is not old as a whole.
    must 'days that are not old are there' test "$(ask "select count(*) from telemetry where device_id = 'old'")" -ge 9
    must 'and not more than that' test "$(ask "select count(*) from telemetry where device_id = 'old'")" -le 11
    must 'nothing else is gone' test "$((before - $(stored)))" -le 12
    must 'it is counted' test "$(metric ingestor_retention_removed_partitions_total)" -ge 10
    PUBLISHED=$(stored)
    publish 200
    nothing_is_lost
    holds
}

looked() { get /admin/retention | jq -e '.due[0]' >/dev/null; }

is_gone() { [[ $(ask "select count(*) from telemetry where ts < now() - interval '12 days'") == 0 ]]; }

main() {
    begin iot-deploy-timescaledb
    ip link set lo up
    make_machine
    layer "$PWD" "$ROOT/src"
    boot
    BEGAN=$(($(millis) / 1000))
    rule 'the service makes its table in a database with TimescaleDB, as a role that is no superuser'
    start_servers
    start_service
    within 30 'the table is there' ask 'select from telemetry'
    holds
    becomes_one
    survives
    is_asked
    forgets
    inside systemctl poweroff 2>/dev/null || true
    must 'the machine powers off' await_end "$NSPAWN_PID" 60
}

main "$@"
