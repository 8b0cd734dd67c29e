#!/usr/bin/env bash
# PostgreSQL and Mosquitto for an ingestor on the same machine, reachable from this machine alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/start-dependencies.sh [--docker]

Installs PostgreSQL and Mosquitto from Debian's or Ubuntu's packages, starts them with the machine,
makes the role `iot` with a password of its own and the database `iotdb`, gives the broker the limits
that the ingestor needs, and puts the connection string where the service reads it:
/etc/iot-ingestor/secrets/database-url. Needs root (or sudo) and systemd. Safe to run again.

  --docker   the same two from deploy/docker-compose.yml, as containers; on ports of 127.0.0.1 unless
             deploy/.env says otherwise
  --help     this text

A role, a database or a connection string that is there already is left as it is.
TEXT
}

SECRET=/etc/iot-ingestor/secrets/database-url
BROKER_CONFIG=/etc/mosquitto/conf.d
DOCKER=''

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --docker) DOCKER=yes ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
}

# --- packages ------------------------------------------------------------------------------------

from_packages() {
    [[ -d /run/systemd/system ]] || fail "systemd does not run here; without it, there is --docker"
    local is_ours=''
    command -v pg_lsclusters >/dev/null || is_ours=yes
    need_commands postgres=postgresql mosquitto=mosquitto
    start_postgresql_service
    [[ -z $is_ours ]] || tune_postgresql
    make_database
    configure_broker
    restart_ingestor
    say ''
    say "PostgreSQL and Mosquitto run, and start with the machine."
}

start_postgresql_service() {
    as_root systemctl --quiet enable --now postgresql
    local tenths=300
    until as_postgres 'select 1' >/dev/null 2>&1; do
        ((tenths-- > 0)) || fail "PostgreSQL does not answer: see journalctl -u 'postgresql*'"
        sleep 0.1
    done
    local addresses
    addresses=$(as_postgres 'show listen_addresses')
    say "  PostgreSQL runs, listening on: $addresses"
    [[ $addresses =~ ^(localhost|127\.0\.0\.1|)$ ]] ||
        complain "  somebody opened it to other machines; see that pg_hba.conf lets in only whom it should"
}

# For many devices: README, "Sizing". Not for a PostgreSQL that was there before.
tune_postgresql() {
    local data tenth_mb
    data=$(as_postgres 'show data_directory')
    tenth_mb=$(($(as_root df --output=size -BM "$data" | tail -n 1 | tr -dc 0-9) / 10))
    ((tenth_mb <= 8192)) || tenth_mb=8192
    ((tenth_mb >= 1024)) || tenth_mb=1024
    as_postgres "alter system set wal_compression = on"
    as_postgres "alter system set max_wal_size = '${tenth_mb}MB'"
    as_postgres 'select pg_reload_conf()' >/dev/null
    say "  wal_compression is on, max_wal_size is $tenth_mb MB"
}

# as_postgres SQL [DATABASE]: the bare values. The statement is not seen in the list of processes.
as_postgres() {
    as_root runuser -u postgres -- psql -X -q -A -t -v ON_ERROR_STOP=1 -d "${2:-postgres}" <<<"$1"
}

make_database() {
    local password
    if [[ -n $(as_postgres "select 1 from pg_roles where rolname = 'iot'") ]]; then
        say "  role iot left as it is"
        ! is_placeholder ||
            complain "  its password is not known here: write the connection string into $SECRET"
    elif password=$(known_password); then
        # First: a role whose password nobody knows would be of no use.
        ! is_placeholder || put_secret "postgres://iot:$password@localhost:5432/iotdb"
        as_postgres "create role iot login password '$password'"
        say "  role iot made"
    else
        complain "  $SECRET names another database, so none is made here"
        return
    fi
    if [[ -n $(as_postgres "select 1 from pg_database where datname = 'iotdb'") ]]; then
        say "  database iotdb left as it is"
    else
        # Device ids are compared by bytes: the order of a language changes with the library, and an
        # update of it may then break the unique index, which keeps a reading from being doubled.
        as_postgres "create database iotdb owner iot encoding 'UTF8' lc_collate 'C' template template0"
        as_postgres "$(<deploy/postgres/partitioned.sql)" iotdb
        say "  database iotdb made, with a table that is partitioned by time"
    fi
}

# A new password, or that of a connection string that names the role and database made here, as after
# a restore of the settings.
known_password() {
    if is_placeholder; then
        random_secret
    elif [[ $(as_root cat "$SECRET") =~ ^postgres://iot:([A-Za-z0-9._~-]+)@(localhost|127\.0\.0\.1):5432/iotdb$ ]]; then
        printf '%s' "${BASH_REMATCH[1]}"
    else
        return 1
    fi
}

# Whether no connection string has been put there yet.
is_placeholder() {
    ! as_root test -e "$SECRET" || as_root grep -q CHANGE-ME "$SECRET"
}

NEW_SECRET=''

# put_secret CONNECTION_STRING
put_secret() {
    as_root install -d -m 755 "${SECRET%/*/*}"
    as_root install -d -m 700 "${SECRET%/*}"
    # In a directory that only root enters.
    printf '%s\n' "$1" | as_root tee "$SECRET" >/dev/null
    as_root chmod 600 "$SECRET"
    say "  $SECRET written"
    NEW_SECRET=yes
}

# Settings in the broker's configuration, ours aside, that a listener of ours would change or clash with:
# most of Mosquitto's are global.
foreign_listeners() {
    as_root sh -c 'cd "$0"/.. && ls mosquitto.conf conf.d/*.conf 2>/dev/null | grep -v "/iot-ingestor-" |
        xargs -r grep -lE "^ *(listener|port|bind_address|allow_anonymous|password_file|acl_file|plugin|auth_plugin|per_listener_settings)\\b"' \
        "$BROKER_CONFIG" || true
}

configure_broker() {
    local name files=(limits loopback) installed=() foreign
    foreign=$(foreign_listeners)
    if [[ -n $foreign ]]; then
        files=(limits)
        complain "  Mosquitto's listeners and logins are left as they are, set in: ${foreign//$'\n'/, }"
        complain "  see that one of them lets the ingestor in, and set MQTT_PORT and its login accordingly"
    fi
    for name in "${files[@]}"; do
        local target="$BROKER_CONFIG/iot-ingestor-$name.conf"
        if ! as_root cmp --silent "deploy/mosquitto/$name.conf" "$target"; then
            # Mosquitto reads what ends in `.conf`.
            ! as_root test -e "$target" || as_root cp -p "$target" "$target.before"
            as_root install -m 644 "deploy/mosquitto/$name.conf" "$target"
            say "  $target installed"
            installed+=("$target")
        fi
    done
    as_root systemctl --quiet enable mosquitto
    if ((${#installed[@]} == 0)); then
        as_root systemctl start mosquitto || fail "Mosquitto does not start: see journalctl -u mosquitto"
    elif as_root systemctl restart mosquitto; then
        as_root rm -f -- "${installed[@]/%/.before}"
    else
        take_back "${installed[@]}"
        fail "Mosquitto does not start with that, so it is as before: see journalctl -u mosquitto"
    fi
    if [[ -n $foreign ]]; then
        say "  Mosquitto runs"
    else
        say "  Mosquitto runs, listening on 127.0.0.1:1883"
    fi
}

# take_back FILE...: has Mosquitto run with the files that there were before these, or without them.
take_back() {
    local file
    for file in "$@"; do
        if as_root test -e "$file.before"; then
            as_root mv -f "$file.before" "$file"
        else
            as_root rm -f -- "$file"
        fi
        complain "  $file taken back"
    done
    # Or it may have been tried too often.
    as_root systemctl reset-failed mosquitto 2>/dev/null || true
    as_root systemctl start mosquitto 2>/dev/null || complain "  Mosquitto did not start without it either"
}

# So that it uses a connection string that was not there when it started.
restart_ingestor() {
    if [[ -n $NEW_SECRET ]] && systemctl --quiet is-active iot-ingestor; then
        as_root systemctl restart iot-ingestor
        say "  iot-ingestor restarted"
    fi
}

# --- containers ----------------------------------------------------------------------------------

from_docker() {
    command -v docker >/dev/null || fail "docker is missing"
    [[ ! -e deploy/secrets/mqtt-server.pem ]] ||
        fail "this stack is secured: start it with both compose files, as the README has it, or it would be opened again"
    scripts/make-secrets.sh
    docker compose --file deploy/docker-compose.yml up --detach --wait postgres mosquitto ||
        fail "docker compose could not start them, see above"
    local address broker
    address=$(docker compose --file deploy/docker-compose.yml port postgres 5432)
    broker=$(docker compose --file deploy/docker-compose.yml port mosquitto 1883)
    if is_placeholder; then
        # The service reaches the same database by the port that the compose file publishes.
        put_secret "$(sed "s|@postgres:5432/|@${address/#0.0.0.0:/127.0.0.1:}/|" deploy/secrets/database-url)"
        [[ ! -d /run/systemd/system ]] || restart_ingestor
    else
        say "  $SECRET left as it is"
    fi
    say ''
    say "PostgreSQL and Mosquitto run as containers, at $address and $broker."
}

main() {
    read_arguments "$@"
    begin iot-dependencies
    if [[ -n $DOCKER ]]; then
        from_docker
    else
        from_packages
    fi
    say "Next:  scripts/install-service.sh    # the ingestor, if it is not there yet"
}

main "$@"
