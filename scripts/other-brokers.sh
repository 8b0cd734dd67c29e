#!/usr/bin/env bash
# What the ingestor gets from other brokers: the table in README, "Other brokers", is what this prints.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/other-brokers.sh [BROKER...]

Runs the ingestor against private brokers of these kinds and prints what each keeps and loses, a line each:
mosquitto, rabbitmq (its MQTT plugin), ejabberd (mod_mqtt); all of them by default. Installs what is missing
from Debian's or Ubuntu's packages. Takes about two minutes a broker.

  --help   this text

The columns: messages kept of 1,000 that were published while the ingestor was away; the same with the
broker restarted in order meanwhile, and with it killed; readings stored of those that the broker
acknowledged, with the ingestor killed under load; messages sent before the broker waits for PUBACKs;
whether they come in the order of publishing; whether $share is granted, and of 1,000 messages to a group
that was away while the broker restarted, how many come.
TEXT
}

BROKERS=() MESSAGES=1000

read_arguments() {
    while (($# > 0)); do
        case $1 in
            mosquitto | rabbitmq | ejabberd) BROKERS+=("$1") ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
    ((${#BROKERS[@]} > 0)) || BROKERS=(mosquitto rabbitmq ejabberd)
}

prepare() {
    need_cargo
    need_commands cc=gcc,libc6-dev postgres=postgresql mosquitto=mosquitto \
        mosquitto_pub=mosquitto-clients python3=python3
    local broker
    for broker in "${BROKERS[@]}"; do
        case $broker in
            rabbitmq) need_commands rabbitmq-server=rabbitmq-server ;;
            ejabberd) need_commands ejabberdctl=ejabberd ;;
            *) ;;
        esac
    done
    say 'building the release binaries (cargo)…'
    run_child cargo cargo build --release --locked --bin ingestor --bin simulator || fail "cargo build failed"
    BIN_DIR="${CARGO_TARGET_DIR:-$PWD/target}/release"
    [[ $BIN_DIR == /* ]] || BIN_DIR="$PWD/$BIN_DIR"
}

# --- brokers: start_BROKER sets BROKER_PID, and MQTT_PORT the first time; started again, it has its state

start_broker() { "start_$BROKER"; }

restart_broker() {
    stop_child "$BROKER_PID" 60 || true
    start_broker
}

kill_broker() {
    kill_tree "$BROKER_PID"
    wait "$BROKER_PID" 2>/dev/null || true
    forget_child "$BROKER_PID"
    start_broker
}

# shellcheck disable=SC2034 # BROKER_PID is set by name
start_mosquitto_as_shipped() {
    local dir="$WORK_DIR/broker" user
    user=$(server_user mosquitto nobody)
    if [[ ! -d $dir ]]; then
        pick_port MQTT_PORT
        mkdir -m 700 "$dir"
        { printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence_location %s/\n' "$MQTT_PORT" "$dir" &&
            cat deploy/mosquitto/limits.conf; } >"$dir/mosquitto.conf"
        [[ -z $user ]] || chown -R "$user" "$dir"
    fi
    start_child BROKER_PID mosquitto "$user" TERM "$(command -v mosquitto)" -c "$dir/mosquitto.conf"
    await_port "$MQTT_PORT" "$BROKER_PID" 10
}

start_rabbitmq() {
    local dir="$WORK_DIR/broker" user
    user=$(server_user rabbitmq nobody)
    if [[ ! -d $dir ]]; then
        pick_port MQTT_PORT
        pick_port ERLANG_PORT
        pick_port EPMD_PORT
        mkdir -m 700 "$dir"
        # Its defaults: 10 messages in flight, and a session that ends after a day.
        cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:$MQTT_PORT
mqtt.allow_anonymous = true
mqtt.default_user = guest
mqtt.default_pass = guest
mqtt.prefetch = 1000
mqtt.subscription_ttl = undefined
CONF
        printf '[rabbitmq_mqtt].\n' >"$dir/plugins"
        [[ -z $user ]] || chown -R "$user" "$dir"
    fi
    start_child BROKER_PID rabbitmq "$user" TERM env HOME="$dir" RABBITMQ_NODENAME=iot@localhost \
        RABBITMQ_MNESIA_BASE="$dir/data" RABBITMQ_LOG_BASE="$dir/log" RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/plugins" RABBITMQ_DIST_PORT="$ERLANG_PORT" \
        ERL_EPMD_PORT="$EPMD_PORT" /usr/lib/rabbitmq/bin/rabbitmq-server
    await_port "$MQTT_PORT" "$BROKER_PID" 120
}

start_ejabberd() {
    local dir="$WORK_DIR/broker" user
    user=$(server_user ejabberd ejabberd)
    if [[ ! -d $dir ]]; then
        pick_port MQTT_PORT
        pick_port ERLANG_PORT
        mkdir -m 700 "$dir" "$dir/data" "$dir/log"
        # Its defaults: 1,000 messages in a queue, and a session that ends after five minutes.
        cat >"$dir/ejabberd.yml" <<CONF
hosts: [localhost]
listen:
  - { port: $MQTT_PORT, ip: "127.0.0.1", module: mod_mqtt, backlog: 100 }
auth_method: [anonymous]
anonymous_protocol: both
modules:
  mod_mqtt: { max_queue: 1000000, session_expiry: 24 hours, match_retained_limit: infinity }
CONF
        : >"$dir/ejabberdctl.cfg"
        : >"$dir/inetrc"
        [[ -z $user ]] || chown -R "$user" "$dir"
    fi
    start_child BROKER_PID ejabberd "$user" TERM env HOME="$dir" ERL_DIST_PORT="$ERLANG_PORT" \
        ejabberdctl --config-dir "$dir" --logs "$dir/log" --spool "$dir/data" --node iot@localhost foreground
    await_port "$MQTT_PORT" "$BROKER_PID" 120
}

# --- the ingestor ----------------------------------------------------------------------------------

start_ingestor() {
    start_child INGESTOR_PID ingestor '' TERM env "${LOGIN[@]}" DATABASE_URL="$DATABASE_URL" MQTT_BROKER=127.0.0.1 \
        MQTT_PORT="$MQTT_PORT" MQTT_CLIENT_ID=iot-brokers HTTP_ADDR="127.0.0.1:$HTTP_PORT" \
        WAL_DIR="$WORK_DIR/wal" "$BIN_DIR/ingestor"
    local tenths=600
    until http_get "$HTTP_PORT" /health/ready >/dev/null 2>&1; do
        check_children "$INGESTOR_PID"
        ((tenths-- > 0)) || { show_log ingestor && fail "the ingestor is not ready after 60 s"; }
        sleep 0.1
    done
}

stop_ingestor() { stop_child "$INGESTOR_PID" 15 || true; }

kill_ingestor() {
    kill_tree "$INGESTOR_PID"
    wait "$INGESTOR_PID" 2>/dev/null || true
    forget_child "$INGESTOR_PID"
}

# publish COUNT [INTERVAL_MS]: the number that the broker acknowledged is printed.
publish() {
    env "${LOGIN[@]}" MQTT_BROKER=127.0.0.1 MQTT_PORT="$MQTT_PORT" NUM_DEVICES=100 PUBLISH_INTERVAL_MS="${2:-0}" \
        MESSAGE_COUNT="$1" PROGRESS_INTERVAL_MS=0 RUST_LOG=error "$BIN_DIR/simulator" 2>>"$LOG_DIR/simulator.log" |
        sed -n 's/.*acked \([0-9]*\).*/\1/p'
}

# How many rows there are, once there are so many, or none more have come for five seconds.
rows() {
    local wanted=$1 now before=-1 quiet=0
    while ((quiet < 50)); do
        now=$(query iotdb 'select count(*) from telemetry' 2>/dev/null || echo 0)
        ((now < wanted)) || break
        if ((now == before)); then quiet=$((quiet + 1)); else quiet=0; fi
        before=$now
        sleep 0.1
    done
    printf '%s' "$now"
}

# kept COMMAND...: of messages published while the ingestor is away, and COMMAND runs, those that come.
kept() {
    local before acked
    before=$(rows 0)
    stop_ingestor
    acked=$(publish "$MESSAGES")
    "$@"
    start_ingestor
    KEPT="$(($(rows $((before + acked))) - before)) of $acked"
}

under_load() {
    local before acked publisher
    before=$(rows 0)
    publish $((MESSAGES * 20)) >"$WORK_DIR/acked" &
    publisher=$!
    until (($(query iotdb 'select count(*) from telemetry') > before + MESSAGES)); do sleep 0.05; done
    kill_ingestor
    start_ingestor
    wait "$publisher"
    acked=$(<"$WORK_DIR/acked")
    KEPT="$(($(rows $((before + acked))) - before)) of $acked"
}

# --- what a client of QoS 1 sees -------------------------------------------------------------------

# probe COMMAND: MQTT 3.1.1 by hand, as no client at hand leaves PUBACKs out.
probe() {
    env "${LOGIN[@]}" python3 - "$MQTT_PORT" "$@" <<'PYTHON'
import os, socket, struct, sys

port, command = int(sys.argv[1]), sys.argv[2]


def text(value):
    value = value.encode()
    return struct.pack(">H", len(value)) + value


def packet(first, body):
    length, out = len(body), bytes([first])
    while True:
        length, digit = divmod(length, 128)
        out += bytes([digit | (128 if length else 0)])
        if not length:
            return out + body


class Client:
    def __init__(self, name, clean):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        flags, login = 2 if clean else 0, b""
        if user := os.environ.get("MQTT_USERNAME"):
            flags, login = flags | 0xC0, text(user) + text(os.environ["MQTT_PASSWORD"])
        self.socket.sendall(packet(0x10, text("MQTT") + bytes([4, flags]) + struct.pack(">H", 300) + text(name) + login))
        self.read(30)

    def read(self, seconds):
        """(type, flags, body), or None if nothing comes within so many seconds."""
        self.socket.settimeout(seconds)
        try:
            first = self.exactly(1)[0]
        except (TimeoutError, EOFError):
            return None
        self.socket.settimeout(30)
        length = shift = 0
        while True:
            digit = self.exactly(1)[0]
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return first >> 4, first & 15, self.exactly(length)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def subscribe(self, topic):
        self.socket.sendall(packet(0x82, struct.pack(">H", 1) + text(topic) + b"\1"))
        while (answer := self.read(10)) and answer[0] != 9:
            pass
        return answer[2][2] if answer else None

    def publish(self, topic, count):
        for number in range(count):
            body = text(topic) + struct.pack(">H", number % 60000 + 1) + str(number).encode()
            self.socket.sendall(packet(0x32, body))
        acked = 0
        while acked < count and (answer := self.read(20)):
            acked += answer[0] == 4

    def messages(self, count, acknowledge=True, patience=5):
        found = []
        while len(found) < count and (answer := self.read(patience)):
            kind, _, body = answer
            if kind != 3:
                continue
            size = struct.unpack(">H", body[:2])[0]
            found.append(int(body[size + 4:]))
            if acknowledge:
                self.socket.sendall(packet(0x40, body[size + 2:size + 4]))
        return found


publisher = Client("probe-publisher", True)
if command == "window":
    reader = Client("probe-window", True)
    reader.subscribe("probe/window")
    publisher.publish("probe/window", 3000)
    count = len(reader.messages(3000, acknowledge=False, patience=3))
    print("3,000 or more" if count == 3000 else f"{count:,}")
elif command == "order":
    reader = Client("probe-order", True)
    reader.subscribe("probe/order")
    publisher.publish("probe/order", 3000)
    found = reader.messages(3000)
    print("yes" if found == sorted(found) and len(found) == 3000 else f"no ({len(found)} came)")
elif command == "share":
    reader = Client("probe-share", False)
    granted = reader.subscribe("$share/group/probe/share")
    if granted not in (0, 1, 2):
        print("no")
    else:
        publisher.publish("probe/share", 10)
        came = len(reader.messages(10, patience=3))
        print("yes" if came == 10 else "no")
elif command == "share-publish":
    publisher.publish("probe/share", 1000)
elif command == "share-count":
    reader = Client("probe-share", False)
    found = reader.messages(1000, patience=2)
    reader.subscribe("$share/group/probe/share")
    found += reader.messages(1000 - len(found), patience=4)
    print(len(found))
PYTHON
}

shared_over_restart() {
    SHARED=$(probe share)
    [[ $SHARED == yes ]] || return 0
    restart_broker
    probe share-publish
    SHARED="yes; $(probe share-count) of 1000"
}

# --- the course of it ------------------------------------------------------------------------------

try_broker() {
    BROKER=$1
    [[ $BROKER != mosquitto ]] || BROKER=mosquitto_as_shipped
    say "── $1…"
    rm -rf -- "$WORK_DIR/broker" "$WORK_DIR/wal"
    LOGIN=(-u MQTT_USERNAME)
    # It takes any login of its host, and none without one.
    [[ $1 != ejabberd ]] || LOGIN=(MQTT_USERNAME=iot@localhost MQTT_PASSWORD=any)
    mkdir "$WORK_DIR/wal"
    start_broker
    pick_port HTTP_PORT
    start_ingestor
    local away restarted killed loaded
    kept true && away=$KEPT
    say "   published while the ingestor is away: $away"
    kept restart_broker && restarted=$KEPT
    say "   and the broker restarted: $restarted"
    kept kill_broker && killed=$KEPT
    say "   and the broker killed: $killed"
    under_load && loaded=$KEPT
    say "   the ingestor killed under load: $loaded"
    stop_ingestor
    local window order
    window=$(probe window)
    order=$(probe order)
    shared_over_restart
    say "   window $window, in order: $order, shared: $SHARED"
    stop_child "$BROKER_PID" 60 || true
    ROWS+=("| $1 | $away | $restarted | $killed | $loaded | $window | $order | $SHARED |")
}

main() {
    read_arguments "$@"
    begin iot-brokers
    prepare
    create_postgres on
    start_postgres
    ROWS=()
    local broker
    for broker in "${BROKERS[@]}"; do try_broker "$broker"; done
    say ''
    say '| broker | away | and it restarts | and it is killed | ingestor killed under load | window | in order | `$share` over a restart |'
    say '|---|---|---|---|---|---|---|---|'
    printf '%s\n' "${ROWS[@]}"
}

main "$@"
