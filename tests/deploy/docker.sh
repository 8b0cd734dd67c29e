#!/usr/bin/env bash
# The compose file on a Docker engine of its own: images built, brought up, the database stopped, the
# ingestor killed, everything removed but the volumes; then the same with TLS and passwords. There is no
# registry, so images with the official names are made here (stand-ins/).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh

ENGINE=/run/engine
# Images and build layers stay for the next run, containers and volumes do not.
DATA="$DOCKER_TREE-data"
PUBLISHED=0
FILES=(-f deploy/docker-compose.yml)
# What the README has as a tool for archives.
DEBIAN=debian:12.12-slim

# --- the engine ----------------------------------------------------------------------------------

start_engine() {
    mount -t tmpfs -o size=2g tmpfs /run
    mkdir -p "$ENGINE" /run/layers/upper /run/layers/work "$DATA"
    mount -t overlay overlay -o "lowerdir=$DOCKER_TREE,upperdir=/run/layers/upper,workdir=/run/layers/work" "$ENGINE"
    mount -t proc proc "$ENGINE/proc"
    mount --rbind /sys "$ENGINE/sys"
    mount --rbind /dev "$ENGINE/dev"
    mkdir -p "$ENGINE/var/lib/docker" "$ENGINE/src"
    mount --bind "$DATA" "$ENGINE/var/lib/docker"
    mount -t tmpfs tmpfs "$ENGINE/run"
    copy_sources
    rm -rf "$DATA"/{containers,volumes,network}
    # With its tree for a root, and not in a chroot: what is executed in a container would get the real
    # root of the namespace instead of the container's.
    # shellcheck disable=SC2016 # for the inner shell
    start_child ENGINE_PID dockerd '' TERM env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin unshare --mount --propagation private \
        sh -c 'cd "$0" && mkdir old && pivot_root . old && umount -l old && exec chroot . dockerd --cgroup-parent "$1"' \
        "$ENGINE" "/$CONTROL_GROUP-docker"
    await_engine
}

await_engine() {
    local tenths=600
    until docker version >/dev/null 2>&1; do
        if ! is_running "$ENGINE_PID" || ((tenths-- <= 0)); then
            show_log dockerd
            # That the kernel allows it was seen before.
            [[ -z ${CI:-} ]] || broken 'the Docker engine does not start'
            skip 'the Docker engine does not start on this machine'
        fi
        sleep 0.1
    done
}

# What a clone would have, with the changes that are not committed yet; settings and secrets of whoever
# works here are not in it.
copy_sources() {
    mkdir "$WORK_DIR/src"
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
        tar -c --null -T - | tar -x -C "$WORK_DIR/src"
    mount --bind "$WORK_DIR/src" "$ENGINE/src"
}

# on_engine COMMAND...: with the engine's tree for a root.
on_engine() { chroot "$ENGINE" env -C /src -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }

docker() { on_engine docker "$@"; }

compose() { docker compose "${FILES[@]}" "$@"; }

# --- images --------------------------------------------------------------------------------------

make_stand_ins() {
    local made_of names name image
    made_of=$(sha256sum "$MACHINE_TREE.made-of" | cut -c 1-12)
    if [[ $(docker image inspect --format '{{.Comment}}' iot-stand-in 2>/dev/null) != "$made_of" ]]; then
        say '       importing the root file system of the stand-ins…'
        tar -C "$MACHINE_TREE" -c --exclude=./usr/share/{doc,man,locale} --exclude=./proc/* . |
            docker import --message "$made_of" - iot-stand-in >/dev/null
    fi
    mkdir -p "$ENGINE"/stand-ins/{toolchain/{bin,lib},vendor}
    mount --bind "$(rustc --print sysroot)/bin" "$ENGINE/stand-ins/toolchain/bin"
    mount --bind "$(rustc --print sysroot)/lib" "$ENGINE/stand-ins/toolchain/lib"
    mount --bind "$VENDORED" "$ENGINE/stand-ins/vendor"
    # The names are those that the files ask for.
    names=$(compose config --images | grep -v '^iot-' && sed -n 's/^ARG RUST_TAG=/rust:/p' deploy/docker/Dockerfile && echo "$DEBIAN")
    for name in $names; do
        image=${name%:*}
        docker build --quiet --tag "$name" --target "${image##*/}" \
            --build-context toolchain=/stand-ins/toolchain --build-context vendor=/stand-ins/vendor \
            /src/tests/deploy/stand-ins >>"$LOG_DIR/stand-ins.log" 2>&1 ||
            { show_log stand-ins && broken "the stand-in for $name"; }
    done
}

build() {
    rule 'the Dockerfile builds both programs'
    local start=$SECONDS
    compose --progress plain build >"$LOG_DIR/build.log" 2>&1 || { show_log build && broken 'docker compose build'; }
    say "       after $((SECONDS - start)) s"
    local image bytes program
    for image in ingestor simulator; do
        must "$image runs" docker run --rm "iot-$image" --version >/dev/null
        equal 10001:10001 "$(docker image inspect --format '{{.Config.User}}' "iot-$image")" "the user of $image"
    done
    holds

    rule 'an image holds its program, and 8 MB beside it at most'
    for image in ingestor simulator; do
        must_fail "$image has a shell" docker run --rm --entrypoint /bin/sh "iot-$image" -c true
        docker create --name "look-$image" "iot-$image" >/dev/null
        program=$(docker cp "look-$image:/usr/local/bin/$image" - | tar -xO | wc -c)
        docker rm "look-$image" >/dev/null
        bytes=$(docker image inspect --format '{{.Size}}' "iot-$image")
        ((program > 0 && bytes - program <= 8000000)) || broken "$image has $bytes bytes, its program $program"
        say "       $image: $bytes bytes, of which its program $program"
    done
    holds

    rule 'an image says what it is, and that of the ingestor whether it lives, also with a root that cannot be written'
    local name
    for image in ingestor simulator; do
        for name in title description licenses; do
            must "$image has the label $name" test -n "$(label "$image" "$name")"
        done
        equal "iot-$image" "$(label "$image" title)" 'the title'
        equal "$(sed -n 's/^license = "\(.*\)"$/\1/p' Cargo.toml)" "$(label "$image" licenses)" 'the licences'
        must "$image runs on a root that cannot be written" docker run --rm --read-only "iot-$image" --version >/dev/null
    done
    equal '["CMD","ingestor","health"]' \
        "$(docker image inspect --format '{{json .Config.Healthcheck.Test}}' iot-ingestor)" 'how it is asked'
    equal '{"/var/lib/iot-ingestor":{}}' "$(docker image inspect --format '{{json .Config.Volumes}}' iot-ingestor)" 'where its log is'
    holds
}

# label IMAGE NAME
label() { docker image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$2\"}}" "iot-$1"; }

# --- what is looked at ---------------------------------------------------------------------------

up() {
    local id
    compose up --detach --wait --wait-timeout 180 "$@" >"$LOG_DIR/up.log" 2>&1 && return
    show_log up
    compose logs --tail 20 >&2
    for id in $(compose ps --all --quiet); do
        docker inspect --format '{{.Name}}: {{.State.Status}}{{with .State.Health}} {{.Status}}{{range .Log}} {{.Output}}{{end}}{{end}}' "$id" >&2
    done
    broken "docker compose up --wait $*"
}

down() { compose down "$@" >>"$LOG_DIR/up.log" 2>&1; }

# in SERVICE COMMAND...
in_service() { compose exec --no-TTY "$@"; }

stored() {
    in_service postgres psql -U iot -d iotdb -X -A -t -c 'select count(*) from telemetry'
}

all_is_stored() {
    local stored
    stored=$(stored) && say "published $PUBLISHED, stored $stored" && ((stored == PUBLISHED))
}

nothing_is_lost() { within 60 'everything is stored' all_is_stored; }

metric() { http_get 8080 /metrics | awk -v name="$1" '$1 == name { print $2; found = 1 } END { exit !found }'; }

metric_is() { [[ $(metric "$1") == "$2" ]]; }

at_least() { (($(metric "$1") >= $2)); }

is_ready() { in_service ingestor ingestor health --ready; }

container() { compose ps --all --quiet "$1"; }

state() { docker inspect --format "{{.State.$2}}" "$(container "$1")"; }

# publish COUNT: by a simulator beside the one of the stack.
publish() {
    local summary
    summary=$(compose run --rm --no-TTY --no-deps -e MESSAGE_COUNT="$1" -e NUM_DEVICES=100 \
        -e PUBLISH_INTERVAL_MS=100 -e RUST_LOG=error simulator 2>"$LOG_DIR/publish.log") ||
        { show_log publish && broken 'the simulator failed'; }
    count "$summary"
}

# The simulator of the stack; its standard output is the summary.
end_simulator() {
    compose stop simulator >>"$LOG_DIR/up.log" 2>&1
    count "$(docker logs "$(container simulator)" 2>/dev/null)"
}

# count SUMMARY: adds what it says was published.
count() {
    [[ $1 =~ published\ ([0-9]+)\ ·\ acked\ ([0-9]+) ]] || broken "no summary of the simulator: $1"
    equal "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" 'acknowledged messages'
    PUBLISHED=$((PUBLISHED + BASH_REMATCH[1]))
}

# --- the rules -----------------------------------------------------------------------------------

is_well_formed() {
    rule 'the compose files and .env.example are well-formed, and open ports on 127.0.0.1 alone'
    scripts_make_secrets
    must 'docker compose config' compose config --quiet
    must 'with the secure override' compose -f deploy/docker-compose.secure.yml config --quiet
    sed 's/^#\([A-Z_]*=\)/\1/' deploy/.env.example >"$WORK_DIR/src/deploy/.env"
    equal "$(compose --env-file /dev/null config)" "$(compose config)" 'the defaults in .env.example'
    local ports images
    ports=$(compose config --format json | jq -r '.services[].ports[]?.host_ip')
    equal 5 "$(wc -l <<<"$ports")" 'ports'
    equal 127.0.0.1 "$(sort -u <<<"$ports")" 'where they are open'
    images=$(compose config --images | grep -v '^iot-')
    equal 4 "$(wc -l <<<"$images")" 'images of others'
    # A colon before it may be that of a port.
    equal "$images" "$(grep -E ':[^/:]*[0-9][^/:]*$' <<<"$images" || true)" 'images with a version'
    rm "$WORK_DIR/src/deploy/.env"
    holds
}

scripts_make_secrets() {
    "$WORK_DIR/src/scripts/make-secrets.sh" "$@" >"$LOG_DIR/secrets.log" 2>&1 || { show_log secrets && broken "make-secrets.sh $*"; }
}

comes_up() {
    rule 'docker compose up --wait brings the whole stack, healthy, and readings into the table'
    up
    local service
    for service in ingestor simulator postgres mosquitto prometheus grafana; do
        equal running "$(state "$service" Status)" "$service"
        [[ $service == simulator ]] || equal healthy "$(state "$service" Health.Status)" "$service"
    done
    within 30 'rows arrive' at_least ingestor_db_inserts_total 20
    within 30 'Prometheus scrapes all it should' targets_are_up
    must 'Grafana answers' http_get 3000 /api/health >/dev/null
    equal C "$(in_service postgres psql -U iot -d iotdb -X -A -t -c "$COLLATION")" 'how device ids are compared'
    equal '' "$(ss -Hltn | awk '{ print $4 }' | grep -Ev '^127\.|^\[::1\]' || true)" 'what other machines reach'
    holds

    rule 'the ingestor runs as a user without rights, on a root that cannot be written, with its log in a volume'
    local pid
    pid=$(pgrep -o -x ingestor)
    must_fail 'the root can be written' touch "/proc/$pid/root/usr/local/bin/x"
    must 'that is for its mount' grep -q ' / / ro' "/proc/$pid/mountinfo"
    equal true "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$(container ingestor)")" 'the root cannot be written'
    equal 10001 "$(stat -c %u "/proc/$pid")" 'the user'
    equal volume "$(docker inspect --format '{{range .Mounts}}{{if eq .Destination "/var/lib/iot-ingestor"}}{{.Type}}{{end}}{{end}}' "$(container ingestor)")" 'the log'
    must_fail 'no secret is in the environment' grep -q postgres:// <<<"$(docker inspect "$(container ingestor)")"
    holds

    rule 'what the stack has published is in the table'
    end_simulator
    nothing_is_lost
    holds
}

targets_are_up() {
    [[ $(http_get 9090 '/api/v1/query?query=up' | jq -c '[.data.result[].value[1]]') == '["1","1"]' ]]
}

survives_an_outage() {
    rule 'with PostgreSQL stopped it takes readings in and stays healthy, and with it back, they are stored'
    compose stop postgres >>"$LOG_DIR/up.log" 2>&1
    publish 2000
    # The broker has acknowledged them, which is not yet that they are here.
    within 10 'they wait' metric_is ingestor_wal_pending_records 2000
    must 'it is ready' is_ready >/dev/null
    equal healthy "$(state ingestor Health.Status)" 'the ingestor'
    compose start postgres >>"$LOG_DIR/up.log" 2>&1
    nothing_is_lost
    holds
}

survives_a_kill() {
    rule 'killed under load, the ingestor is started again, and nothing is lost'
    local restarts pid
    restarts=$(docker inspect --format '{{.RestartCount}}' "$(container ingestor)")
    publish 3000 &
    local publisher=$!
    within 20 'it takes messages in' at_least ingestor_messages_total $((PUBLISHED + 500))
    # `docker kill` would count as stopped on purpose.
    pid=$(pgrep -o -x ingestor)
    kill -KILL "$pid"
    wait "$publisher" || broken 'the simulator failed'
    PUBLISHED=$((PUBLISHED + 3000))
    equal $((restarts + 1)) "$(docker inspect --format '{{.RestartCount}}' "$(container ingestor)")" 'restarts'
    within 30 'it is ready' is_ready
    nothing_is_lost
    holds
}

survives_an_upgrade() {
    rule 'with every container removed and made anew, the log and the table are as they were'
    compose stop postgres >>"$LOG_DIR/up.log" 2>&1
    publish 500
    down
    # It stops in order, and what is in the log is in the volume.
    up --scale simulator=0
    nothing_is_lost
    holds
}

# By the commands of the README.
comes_back_from_a_backup() {
    rule 'secrets, database and log that were backed up come back after everything was removed, and nothing is lost'
    local backup="$ENGINE/src/backup"
    mkdir "$backup"
    compose exec -T postgres pg_dump -U iot -Fc iotdb >"$backup/iotdb.dump"
    on_engine tar -czf backup/settings.tar.gz deploy/secrets
    compose stop postgres >>"$LOG_DIR/up.log" 2>&1
    publish 300
    within 10 'they wait' metric_is ingestor_wal_pending_records 300
    compose stop ingestor >>"$LOG_DIR/up.log" 2>&1
    docker run --rm -v iot_wal:/wal:ro "$DEBIAN" tar -cz -C /wal . >"$backup/wal.tar.gz"
    down --volumes
    rm -r "$WORK_DIR/src/deploy/secrets"

    on_engine tar -xzf backup/settings.tar.gz
    up postgres
    compose exec -T postgres pg_restore -U iot --clean --if-exists -d iotdb <"$backup/iotdb.dump"
    docker run --rm -i -v iot_wal:/wal "$DEBIAN" tar -xz -C /wal <"$backup/wal.tar.gz"
    up --build --scale simulator=0
    nothing_is_lost
    publish 100
    nothing_is_lost
    rm -r "$backup"
    holds
}

is_secure() {
    down --volumes
    PUBLISHED=0
    FILES+=(-f deploy/docker-compose.secure.yml)
    scripts_make_secrets --secure broker.example 192.0.2.1 --device sensor-002
    rule 'with docker-compose.secure.yml a device that has a login gets its readings in by TLS'
    up
    within 30 'rows arrive' at_least ingestor_db_inserts_total 3
    end_simulator
    nothing_is_lost
    must 'the certificate is for the names asked for' openssl verify -CAfile "$(secret mqtt-ca.pem)" \
        -verify_hostname broker.example "$(secret mqtt-server.pem)" >/dev/null
    holds

    rule 'and nobody else gets in: no password, a wrong one, no authority, no TLS'
    must 'a device with a login gets in' client sensor-002 "$(cat "$(secret mqtt-sensor-002)")" -t telemetry/sensor-002 -m '{}'
    must_fail 'no password' client '' '' -t telemetry/sensor-002 -m '{}'
    must_fail 'a wrong password' client sensor-002 wrong -t telemetry/sensor-002 -m '{}'
    must_fail 'no TLS' in_service mosquitto mosquitto_pub -h localhost -p 8883 -u sensor-002 -P "$(cat "$(secret mqtt-sensor-002)")" -t x -m x
    must_fail 'the plain port is closed' in_service mosquitto nc -z 127.0.0.1 1883
    must_fail 'an unknown authority' in_service mosquitto mosquitto_pub --cafile /etc/ssl/certs/ca-certificates.crt -h localhost -p 8883 \
        -u sensor-002 -P "$(cat "$(secret mqtt-sensor-002)")" -t x -m x
    holds

    rule 'a device publishes under its own name alone and reads nothing, and the ingestor writes nothing'
    local before subscribed
    before=$(metric ingestor_messages_total)
    # The broker acknowledges it, and drops it.
    client sensor-002 "$(cat "$(secret mqtt-sensor-002)")" -t telemetry/sensor-001 -m '{}'
    client sensor-002 "$(cat "$(secret mqtt-sensor-002)")" -t telemetry/sensor-002 -m '{}'
    client sensor-002 "$(cat "$(secret mqtt-sensor-002)")" -t telemetry/sensor-002/part -m '{}'
    within 10 'its own messages arrive' at_least ingestor_messages_total $((before + 2))
    equal $((before + 2)) "$(metric ingestor_messages_total)" 'messages'
    # Here the user's name is the client's id: this throws the ingestor out, and what it publishes would
    # be waiting when that comes back.
    subscribed=$(subscriptions)
    client ingestor "$(cat "$(secret mqtt-ingestor)")" -r -t telemetry/sensor-001 -m '{}' || true
    within 10 'the ingestor comes back' more_subscriptions_than "$subscribed"
    client sensor-002 "$(cat "$(secret mqtt-sensor-002)")" -t telemetry/sensor-002 -m '{}'
    within 10 'a message arrives again' at_least ingestor_messages_total $((before + 3))
    equal $((before + 3)) "$(metric ingestor_messages_total)" 'messages with those of the ingestor itself'
    holds
}

subscriptions() { docker logs "$(container ingestor)" 2>&1 | grep -c '"message":"subscribed"'; }

more_subscriptions_than() { (($(subscriptions) > $1)); }

serves_a_single_box() {
    down --volumes
    rule 'start-dependencies.sh --docker does not open a stack that was secured'
    must_fail 'it starts' on_engine scripts/start-dependencies.sh --docker
    equal '' "$(docker ps --quiet)" 'containers'
    holds

    rm -r "$WORK_DIR/src/deploy/secrets"
    rule 'start-dependencies.sh --docker brings database and broker alone, and a connection string that works'
    on_engine scripts/start-dependencies.sh --docker >"$LOG_DIR/dependencies.log" 2>&1 ||
        { show_log dependencies && broken 'start-dependencies.sh --docker'; }
    equal 'mosquitto postgres' "$(docker ps --format '{{.Label "com.docker.compose.service"}}' | sort | xargs)" 'containers'
    local url
    url=$(on_engine cat /etc/iot-ingestor/secrets/database-url)
    equal 1 "$("$(find_postgres)/psql" -X -A -t -c 'select 1' "$url")" 'the database'
    must 'the broker answers' port_answers 1883
    holds
}

secret() { printf '%s' "$WORK_DIR/src/deploy/secrets/$1"; }

# client USER PASSWORD ARGUMENT...: publishes with QoS 1.
client() {
    local user=$1 password=$2
    shift 2
    in_service mosquitto mosquitto_pub --cafile /run/secrets/mqtt-ca.pem -h localhost -p 8883 -q 1 \
        ${user:+-u "$user" -P "$password"} "$@"
}

main() {
    begin iot-deploy-docker
    ip link set lo up
    start_engine
    is_well_formed
    make_stand_ins
    build
    comes_up
    survives_an_outage
    survives_a_kill
    survives_an_upgrade
    comes_back_from_a_backup
    is_secure
    serves_a_single_box
    down --volumes
}

main "$@"
