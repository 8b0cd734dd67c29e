#!/usr/bin/env bash
# What can be said of the deployment files without running anything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh

DASHBOARD=deploy/grafana/dashboard.json
TABLES=deploy/grafana/tables.json
ALERTS=deploy/prometheus/alerts.yml

main() {
    begin iot-deploy-files
    SECRETS="$WORK_DIR/secrets"

    rule 'the exposure of the unit is at most 1.1'
    must 'systemd-analyze security' quietly systemd-analyze security --no-pager --offline=true \
        --threshold=11 deploy/systemd/iot-ingestor.service
    holds

    rule 'the settings shown as defaults are the defaults'
    local line count=0
    # That of LOG_FORMAT is what standard error is.
    env -i "$BIN_DIR/ingestor" check-config >"$WORK_DIR/defaults"
    while read -r line; do
        must "$line" grep -qxF -- "$line" "$WORK_DIR/defaults"
        count=$((count + 1))
    done < <(sed -n '/MQTT_USERNAME\|LOG_FORMAT\|_FILE=/!s/^#\([A-Z_]*=.\+\)/\1/p' deploy/systemd/ingestor.env)
    ((count > 15)) || broken "only $count settings were found"
    holds

    rule 'each thing that lintian is told to pass over has its reason above it'
    equal '' "$(awk '!/^#/ && previous !~ /^# ./ { print } { previous = $0 }' deploy/debian/lintian-overrides)" 'those without one'
    must 'there are some' grep -q '^iot-ingestor: ' deploy/debian/lintian-overrides
    holds

    rule 'make-secrets.sh changes nothing when run again, and says when the key of the authority is away'
    local before
    secrets --secure broker.example
    before=$(fingerprint)
    secrets --secure broker.example
    equal "$before" "$(fingerprint)" 'the secrets'
    mv "$SECRETS/mqtt-ca.key" "$WORK_DIR"
    secrets --secure
    equal "$(grep -v mqtt-ca.key <<<"$before")" "$(fingerprint)" 'the secrets without the key'
    must_fail 'a certificate without the key' secrets --secure other.example
    must 'it says what is missing' grep -q 'bring it back' "$LOG_DIR/secrets.log"
    equal "$(grep -v mqtt-ca.key <<<"$before")" "$(fingerprint)" 'the secrets after that'
    mv "$WORK_DIR/mqtt-ca.key" "$SECRETS"
    holds

    rule 'make-secrets.sh ends what an interrupted run has begun, and renews a certificate in time'
    local lost
    # Each of them is made last of some others.
    for lost in mqtt-ca.pem mqtt-server.names; do
        rm "$SECRETS/$lost"
        secrets --secure other.example
        certificate_is_good "without $lost"
    done
    rm "$SECRETS"/mqtt-server.{pem,key}
    openssl req -x509 -newkey rsa:2048 -nodes -days 59 -subj /CN=mosquitto -keyout "$SECRETS/mqtt-server.key" \
        -out "$SECRETS/mqtt-server.pem" 2>/dev/null
    secrets --secure
    certificate_is_good 'in its last days'
    holds

    rule 'pin-images.sh names every image of others by digest, or none'
    local pinned="$WORK_DIR/pinned.yml" images
    stub_docker 'printf "sha256:%s\n" "$(printf %s "$6" | sha256sum | cut -d" " -f1)"'
    must 'it runs' pin
    images=$(grep -cE '^    image: [^$]+$' deploy/docker-compose.yml)
    equal "$images" "$(grep -cE '^    image: "[^@]+@sha256:[0-9a-f]{64}"$' "$pinned")" 'images that are pinned'
    equal 2 "$(grep -oE 'RUST_TAG: "[^@]+@sha256:[0-9a-f]{64}"' "$pinned" | wc -l)" 'images that ours are built from'
    must 'it is YAML' python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' "$pinned"
    images=$(sha256sum "$pinned")
    stub_docker 'case $6 in postgres:*) exit 1 ;; esac; printf "sha256:%064d\n" 0'
    must_fail 'a registry that does not answer for one of them' pin
    equal "$images" "$(sha256sum "$pinned")" 'what was pinned before'
    holds

    rule 'Prometheus takes its configuration'
    must 'promtool check config' quietly promtool check config deploy/prometheus/prometheus.yml
    holds

    rule 'the alerts fire when they should, and each one is tested and says what to do'
    must 'promtool test rules' quietly promtool test rules deploy/prometheus/alerts_test.yml
    local alert
    count=0
    while read -r alert; do
        must "$alert is tested" grep -q "$alert" deploy/prometheus/alerts_test.yml
        count=$((count + 1))
    done < <(awk '/- alert:/ { print $3 }' "$ALERTS")
    ((count > 10)) || broken "only $count alerts were found"
    equal "$count" "$(grep -cE '^ +action: .' "$ALERTS")" 'alerts with an action'
    equal "$count" "$(grep -cE '^ +summary: .' "$ALERTS")" 'alerts with a summary'
    holds

    rule 'the dashboard is well-formed: panels with a title, a query and a place of their own'
    must 'ids are unique' dashboard '[.panels[].id] | length == (unique | length)'
    must 'each panel has a title' dashboard 'all(.panels[]; .title != "")'
    must 'each panel asks something' dashboard 'all(.panels[] | select(.type != "row"); (.targets | length) > 0 and all(.targets[]; .expr != ""))'
    must 'no panel lies on another' dashboard '
        [.panels[] | {id, x: range(.gridPos.x; .gridPos.x + .gridPos.w), y: range(.gridPos.y; .gridPos.y + .gridPos.h)} | "\(.x) \(.y)"]
        | length == (unique | length)'
    local uid
    uid=$(awk '$1 == "uid:" { print $2 }' deploy/grafana/provisioning/datasources/prometheus.yml)
    must 'its data source is the one provided' dashboard "all(.. | .datasource?.uid? // empty; . == \"$uid\")"
    holds

    rule 'so is the one on the tables, whose data source is the database'
    DASHBOARD=$TABLES
    must 'ids are unique' dashboard '[.panels[].id] | length == (unique | length)'
    must 'each panel asks something' dashboard 'all(.panels[]; .title != "" and (.targets | length) > 0 and all(.targets[]; .rawSql != ""))'
    must 'it has its variables' dashboard '[.templating.list[].name] == ["table", "field", "device"]'
    uid=$(awk '$1 == "uid:" { print $2 }' deploy/grafana/provisioning/datasources/postgres.yml)
    must 'its data source is the one provided' dashboard "all(.. | .datasource?.uid? // empty; . == \"$uid\")"
    holds
}

# certificate_is_good WHEN: it is of the authority, for other.example, and has its key.
certificate_is_good() {
    must "$1: a certificate of the authority" openssl verify -CAfile "$SECRETS/mqtt-ca.pem" \
        -verify_hostname other.example "$SECRETS/mqtt-server.pem" >/dev/null
    equal "$(openssl x509 -noout -pubkey -in "$SECRETS/mqtt-server.pem")" \
        "$(openssl pkey -pubout -in "$SECRETS/mqtt-server.key")" "$1: the key"
}

secrets() { SECRETS_DIR=$SECRETS scripts/make-secrets.sh "$@" >"$LOG_DIR/secrets.log" 2>&1; }

# stub_docker SCRIPT: what `docker buildx imagetools inspect --format … IMAGE` does.
stub_docker() {
    mkdir -p "$WORK_DIR/stub"
    printf '#!/bin/sh\n%s\n' "$1" >"$WORK_DIR/stub/docker"
    chmod +x "$WORK_DIR/stub/docker"
}

pin() { PATH="$WORK_DIR/stub:$PATH" PINNED="$WORK_DIR/pinned.yml" scripts/pin-images.sh >"$LOG_DIR/pin.log" 2>&1; }

fingerprint() { (cd "$SECRETS" && sha256sum -- *); }

dashboard() { jq --exit-status "$1" "$DASHBOARD" >/dev/null; }

# Its output only if it fails.
quietly() { "$@" >"$LOG_DIR/output.log" 2>&1 || { cat "$LOG_DIR/output.log" >&2 && return 1; }; }

main "$@"
