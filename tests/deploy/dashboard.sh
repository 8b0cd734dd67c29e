#!/usr/bin/env bash
# Every panel of the dashboard and every metric of the alerts has data, asked of a real Prometheus that
# scrapes a real ingestor at work. So has every query of the dashboard on the tables, asked of the database
# that it writes to, by a role as the compose file makes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh

DASHBOARD=deploy/grafana/dashboard.json TABLES=deploy/grafana/tables.json

start_all() {
    create_postgres off
    start_postgres
    # As new installations begin.
    make_dashboard_role
    query iotdb "$(<deploy/postgres/partitioned.sql)" >/dev/null
    start_mosquitto
    cat deploy/mappings/{tasmota,owntracks}.toml >"$WORK_DIR/Rocket.toml"
    pick_port HTTP_PORT
    start_child INGESTOR_PID ingestor '' TERM env -i DATABASE_URL="$DATABASE_URL" MQTT_BROKER=127.0.0.1 \
        MQTT_PORT="$MQTT_PORT" MQTT_CLIENT_ID=dashboard HTTP_ADDR="127.0.0.1:$HTTP_PORT" \
        WAL_DIR="$WORK_DIR/wal" RETENTION_DAYS=30 ROCKET_CONFIG="$WORK_DIR/Rocket.toml" "$BIN_DIR/ingestor"
    within 30 'the ingestor is ready' http_get "$HTTP_PORT" /health/ready
    start_child SIMULATOR_PID simulator '' TERM env -i MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" \
        NUM_DEVICES=50 PUBLISH_INTERVAL_MS=100 INVALID_RATIO=0.02 "$BIN_DIR/simulator"
    local kind pid
    for kind in tasmota owntracks; do
        start_child pid "simulator-$kind" '' TERM env -i MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" \
            SIMULATE=$kind NUM_DEVICES=5 PUBLISH_INTERVAL_MS=1000 "$BIN_DIR/simulator"
    done
    # The configuration as shipped, with the places of this test and a shorter interval.
    pick_port PROMETHEUS_PORT
    mkdir "$WORK_DIR/prometheus"
    sed -e "s/ingestor:8080/127.0.0.1:$HTTP_PORT/; s/127.0.0.1:9090/127.0.0.1:$PROMETHEUS_PORT/" \
        -e 's/_interval: 10s/_interval: 1s/' deploy/prometheus/prometheus.yml >"$WORK_DIR/prometheus/prometheus.yml"
    cp deploy/prometheus/alerts.yml "$WORK_DIR/prometheus"
    start_child PROMETHEUS_PID prometheus '' TERM "$(command -v prometheus)" \
        --config.file="$WORK_DIR/prometheus/prometheus.yml" --storage.tsdb.path="$WORK_DIR/prometheus/data" \
        --web.listen-address="127.0.0.1:$PROMETHEUS_PORT"
}

# As it is made in a new database of the compose file.
make_dashboard_role() {
    local statements
    statements=$(sed -n "/^\(create\|alter\) .*dashboard/s/'\$dashboard'/'$PG_PASSWORD'/p; /^alter .*dashboard/p" \
        deploy/postgres/make-role.sh)
    [[ $statements == *'create role dashboard'*'grant select'* ]] || broken "make-role.sh: $statements"
    query iotdb "$statements" >/dev/null
}

# read_tables STATEMENT: as the dashboard's role, within Grafana's patience.
read_tables() {
    PGPASSWORD=$PG_PASSWORD PGCONNECT_TIMEOUT=5 timeout 30 "$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$PG_PORT" -U dashboard -d iotdb -c "$1"
}

# What Grafana would ask: TEMPLATE TABLE FIELD, and the devices as it quotes them.
# shellcheck disable=SC2016 # what is replaced is Grafana's
as_asked() {
    local sql=$1
    sql=${sql//'${table:raw}'/${2:-}}
    sql=${sql//'${field:raw}'/${3:-}}
    sql=${sql//'${device:sqlstring}'/"${4:-}"}
    sql=${sql//'$__timeGroupAlias(ts, $__interval)'/floor(extract(epoch from ts)/10)*10 as \"time\"}
    sql=${sql//'$__timeFilter(ts)'/ts between now() - interval \'6 hours\' and now() + interval \'1 hour\'}
    [[ $sql != *'$'* ]] || broken "what is this to Grafana: $sql"
    printf '%s' "$sql"
}

variable() { jq --raw-output --arg name "$1" '.templating.list[] | select(.name == $name) | .query' "$TABLES"; }

# What is in a table that a mapping fills is shown: EXPECTED columns among those offered.
table_is_shown() {
    local table=$1 expected=$2 fields field devices title sql
    fields=$(read_tables "$(as_asked "$(variable field)" "$table")")
    for field in $expected; do
        must "$table: $field is offered" grep -qxF "$field" <<<"$fields"
    done
    devices=$(read_tables "$(as_asked "$(variable device)" "$table")" | sed "s/.*/'&'/" | paste -sd,)
    [[ -n $devices ]] || broken "$table: no device is offered"
    for field in $expected; do
        while IFS=$'\t' read -r title sql; do
            # An answer without a row, or with a null, would be an empty panel.
            [[ $(read_tables "$(as_asked "$(jq --raw-output . <<<"$sql")" "$table" "$field" "$devices")") =~ [0-9] ]] ||
                broken "$table, $field: the panel \"$title\" has no data"
            QUERIES=$((QUERIES + 1))
        done < <(jq --raw-output '.panels[] | .title as $title | .targets[] | [$title, (.rawSql | tojson)] | join("\t")' "$TABLES")
    done
}

tables_are_offered() { [[ $(read_tables "$(as_asked "$(variable table)")" | paste -sd' ') == "$1" ]]; }
filled() { [[ $(query iotdb "select count(*) > 20 from $1") == t ]]; }

# ask EXPRESSION: the answer's values, a line each.
ask() {
    curl --fail --silent --show-error --max-time 10 --data-urlencode "query=$1" \
        "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" | jq --raw-output '.data.result[].value[1]'
}

# Whether there is a number among them.
has_data() { ask "$1" | grep -Eq '^[-+0-9.e]+$'; }

# What Grafana would put there.
filled_in() {
    local expression=${1//\$instance/.*}
    printf '%s' "${expression//\$__rate_interval/15s}"
}

main() {
    begin iot-deploy-dashboard
    start_all

    rule 'Prometheus finds what it is told to scrape'
    within 30 'all targets are up' has_data 'count(up == 1) == 2'
    holds

    rule 'every panel of the dashboard shows data'
    local title expression count=0
    while IFS=$'\t' read -r title expression; do
        within 60 "the panel \"$title\" has data: $expression" has_data "$(filled_in "$expression")"
        count=$((count + 1))
    done < <(jq --raw-output '.panels[] | .title as $title | .targets[]? | [$title, .expr] | @tsv' "$DASHBOARD")
    ((count > 30)) || broken "only $count queries were found"
    must 'the list of instances has data' has_data 'ingestor_messages_total'
    say "       $count queries"
    holds

    rule 'every query of the dashboard on the tables has data, of each table and field'
    QUERIES=0
    within 60 'there are positions' filled positions
    within 60 'there are rows of Tasmota' filled 'telemetry where humidity is not null and device_id like $$%/AM2301$$'
    within 10 'all tables are offered' tables_are_offered 'telemetry positions'
    table_is_shown telemetry 'temperature humidity'
    table_is_shown positions 'latitude accuracy battery'
    ((QUERIES > 30)) || broken "only $QUERIES queries were found"
    must_fail 'its role writes' read_tables "delete from positions"
    say "       $QUERIES queries"
    holds

    rule 'every metric that an alert looks at is there'
    local metric
    count=0
    while read -r metric; do
        must "$metric is there" has_data "$metric"
        count=$((count + 1))
    done < <(grep -v '^ *#' deploy/prometheus/alerts.yml | sed -n '/expr:/,/labels:\|for:/p' |
        grep -Eo '\b(ingestor|process)_[a-z_]+' | sort -u)
    ((count > 10)) || broken "only $count metrics were found"
    holds

    rule 'with all well, no alert fires'
    equal '' "$(ask 'ALERTS{alertstate="firing"}')" 'alerts'
    holds

    rule 'with the database down, the alert for it is on its way'
    kill_postgres
    within 30 'DatabaseDown is pending' has_data 'ALERTS{alertname="DatabaseDown"}'
    holds
}

main "$@"
