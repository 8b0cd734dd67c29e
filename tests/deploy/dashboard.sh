#!/usr/bin/env bash
# Every panel of the dashboard and every metric of the alerts has data, asked of a real Prometheus that
# scrapes a real ingestor at work.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh

DASHBOARD=deploy/grafana/dashboard.json

start_all() {
    create_postgres off
    start_postgres
    # As new installations begin.
    query iotdb "$(<deploy/postgres/partitioned.sql)" >/dev/null
    start_mosquitto
    pick_port HTTP_PORT
    start_child INGESTOR_PID ingestor '' TERM env -i DATABASE_URL="$DATABASE_URL" MQTT_BROKER=127.0.0.1 \
        MQTT_PORT="$MQTT_PORT" MQTT_CLIENT_ID=dashboard HTTP_ADDR="127.0.0.1:$HTTP_PORT" \
        WAL_DIR="$WORK_DIR/wal" RETENTION_DAYS=30 "$BIN_DIR/ingestor"
    within 30 'the ingestor is ready' http_get "$HTTP_PORT" /health/ready
    start_child SIMULATOR_PID simulator '' TERM env -i MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" \
        NUM_DEVICES=50 PUBLISH_INTERVAL_MS=100 INVALID_RATIO=0.02 "$BIN_DIR/simulator"
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
