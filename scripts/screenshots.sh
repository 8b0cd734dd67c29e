#!/usr/bin/env bash
# Takes the pictures of the operator page that the README shows, into .images: of a real ingestor with
# real servers, first when all is well, then with the database killed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/screenshots.sh [--minutes N]

Takes the README's pictures of the operator page into .images. Installs what is missing (PostgreSQL,
Mosquitto and Chromium from Debian's packages), starts private servers, the ingestor and the simulator,
and leaves nothing running.

  --minutes N   how long to publish before the first picture (15, which fills the charts)
  --help        this text
TEXT
}

MINUTES=15
OUTAGE_SECONDS=150
IMAGES=.images

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --minutes)
                MINUTES=${2:-}
                shift
                ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
    [[ $MINUTES =~ ^[0-9]{1,3}$ ]] || bad_usage "--minutes takes a number"
}

start() {
    local bin="${CARGO_TARGET_DIR:-target}/release"
    create_postgres off
    start_postgres
    start_mosquitto
    pick_port HTTP_PORT
    mkdir "$WORK_DIR/wal"
    start_child INGESTOR_PID ingestor '' TERM env DATABASE_URL="$DATABASE_URL" MQTT_BROKER=127.0.0.1 \
        MQTT_PORT="$MQTT_PORT" HTTP_ADDR="127.0.0.1:$HTTP_PORT" WAL_DIR="$WORK_DIR/wal" \
        ADMIN_TOKEN=not-shown-anywhere "$(realpath "$bin")/ingestor"
    await_port "$HTTP_PORT" "$INGESTOR_PID" 30
    start_child SIMULATOR_PID simulator '' TERM env MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" \
        NUM_DEVICES=200 PUBLISH_INTERVAL_MS=1000 INVALID_RATIO=0.0005 "$(realpath "$bin")/simulator"
}

# picture NAME WIDTH HEIGHT light|dark: what a screen of that size shows, a few seconds after it was opened.
picture() {
    local scheme=1
    [[ $4 == light ]] || scheme=0
    say "  $IMAGES/$1.png"
    run_child chromium timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic \
        --no-first-run --disable-background-networking --disable-component-update --disable-sync \
        --user-data-dir="$WORK_DIR/browser" --hide-scrollbars --force-prefers-reduced-motion \
        --force-device-scale-factor=1 --window-size="$2,$3" --blink-settings="preferredColorScheme=$scheme" \
        --virtual-time-budget=5000 --screenshot="$PWD/$IMAGES/$1.png" "http://127.0.0.1:$HTTP_PORT/" \
        >"$LOG_DIR/chromium.log" 2>&1 || {
        show_log chromium
        fail "Chromium took no picture"
    }
}

# A child that ends is to be heard of before the pictures are.
publish_for() {
    local end=$((SECONDS + $1))
    while ((SECONDS < end)); do
        check_children "$INGESTOR_PID" "$SIMULATOR_PID"
        sleep 1
    done
}

main() {
    read_arguments "$@"
    begin iot-screenshots
    need_cargo
    need_commands cc=gcc,libc6-dev postgres=postgresql mosquitto=mosquitto chromium=chromium
    run_child cargo cargo build --release --locked --bin ingestor --bin simulator || fail "cargo build failed"
    mkdir -p "$IMAGES"
    start
    say "publishing for $MINUTES min…"
    publish_for $((MINUTES * 60))
    picture page 1280 940 light
    kill_postgres
    say "PostgreSQL killed; publishing for $OUTAGE_SECONDS s…"
    publish_for "$OUTAGE_SECONDS"
    picture page-outage 1280 940 dark
    picture page-phone 360 740 light
}

main "$@"
