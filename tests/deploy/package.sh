#!/usr/bin/env bash
# The package on a machine that has never seen Rust: installed, set up, upgraded, rolled back, removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh
# shellcheck source=tests/deploy/machine.sh
source tests/deploy/machine.sh

# Of scripts/test-deploy.sh: two of the same programs, the second the newer.
: "${PACKAGES:?run scripts/test-deploy.sh}"
DATABASE_URL=postgres://iot:a-password@localhost/iotdb

# apt COMMAND...: what it says is for whoever looks into a failure.
apt() {
    inside env DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet "$@" >"$LOG_DIR/apt.log" 2>&1 </dev/null ||
        broken "apt-get $*: $(cat "$LOG_DIR/apt.log")"
}

# shellcheck disable=SC2016 # for dpkg-query
installed() { inside dpkg-query --show --showformat='${Version} ${db:Status-Status}' iot-ingestor 2>/dev/null; }

# Somebody's database and broker, which are there already.
start_servers() {
    # Or it drops what comes while the service is away for longer than a second of this load.
    inside cp /src/deploy/mosquitto/limits.conf /etc/mosquitto/conf.d/
    inside systemctl start postgresql mosquitto
    within 30 'PostgreSQL answers' inside runuser -u postgres -- psql -q -c 'select 1'
    inside runuser -u postgres -- psql -q -c "create role iot login password 'a-password'"
    inside runuser -u postgres -- psql -q -c 'create database iotdb owner iot'
}

has_first_row() { (($(stored) >= 1)); }

comes_up() {
    rule 'three commands bring a machine without Rust to the first row within a minute'
    local since
    since=$SECONDS
    apt install "/packages/$1"
    must_fail 'it runs before it was set up' is_active
    inside ingestor init --broker localhost --database "$DATABASE_URL" --yes >"$LOG_DIR/init.log" 2>&1 ||
        broken "ingestor init: $(cat "$LOG_DIR/init.log")"
    inside systemctl start "$SERVICE"
    publish 100
    within 30 'there is a row' has_first_row
    ((SECONDS - since <= 60)) || broken "it took $((SECONDS - since)) s"
    say "       first row after $((SECONDS - since)) s"
    nothing_is_lost
    holds

    rule 'what is installed is complete, enabled, confined, and its secrets are its own'
    equal enabled "$(inside systemctl is-enabled "$SERVICE")" 'at boot'
    equal /usr/bin/ingestor "$(inside readlink "/proc/$(main_pid)/exe")" 'the program'
    equal '700 root' "$(inside stat -c '%a %U' /etc/iot-ingestor/secrets)" 'the secrets'
    equal '600 root' "$(inside stat -c '%a %U' /etc/iot-ingestor/secrets/database-url)" 'a secret'
    equal '600 root' "$(inside stat -c '%a %U' /etc/iot-ingestor/ingestor.env)" 'the settings'
    equal "640 root $SERVICE" "$(inside stat -c '%a %U %G' /etc/iot-ingestor/Rocket.toml)" 'the mappings'
    equal "700 $SERVICE" "$(inside stat -c '%a %U' /var/lib/iot-ingestor)" 'the data'
    # Older ones know no threshold.
    if (($(inside systemctl --version | awk 'NR == 1 { print $2 + 0 }') >= 250)); then
        must 'the exposure is at most 1.5' inside systemd-analyze security --no-pager --threshold=15 "$SERVICE" >/dev/null
    fi
    local file
    for file in man/man1/ingestor.1.gz man/man1/simulator.1.gz bash-completion/completions/ingestor \
        iot-ingestor/mappings/tasmota.toml doc/iot-ingestor/copyright doc/iot-ingestor/changelog.Debian.gz; do
        must "$file is there" inside test -s "/usr/share/$file"
    done
    must 'the settings are there to be changed' inside cmp /etc/iot-ingestor/Rocket.toml /usr/share/iot-ingestor/Rocket.toml.example
    must_fail 'dpkg would ask about settings at an upgrade' inside test -s /var/lib/dpkg/info/iot-ingestor.conffiles
    inside ingestor doctor >"$LOG_DIR/doctor.log" 2>&1 || broken "ingestor doctor: $(cat "$LOG_DIR/doctor.log")"
    must 'it has looked at what is installed' grep -q '^ok configuration: /etc/iot-ingestor/ingestor.env$' "$LOG_DIR/doctor.log"
    must 'it has seen the service' grep -q '^ok service: it runs (process' "$LOG_DIR/doctor.log"
    holds
}

is_told_what_the_service_may_not() {
    rule 'doctor, as root, names what the service may not read or write'
    inside cp --preserve /etc/iot-ingestor/ingestor.env /root/ingestor.env
    inside sh -c 'install -m 600 /etc/iot-ingestor/secrets/admin-token /etc/admin-token &&
        sed -i s,^ADMIN_TOKEN_FILE=.*,ADMIN_TOKEN_FILE=/etc/admin-token, /etc/iot-ingestor/ingestor.env &&
        echo WAL_DIR=/srv/wal >>/etc/iot-ingestor/ingestor.env && chmod 600 /etc/iot-ingestor/Rocket.toml'
    must_fail 'it is content' inside ingestor doctor
    inside ingestor doctor >"$LOG_DIR/doctor.log" 2>&1 || true
    local line
    for line in "files: the service's user may not read /etc/admin-token (ADMIN_TOKEN_FILE)" \
        "files: the service's user may not read /etc/iot-ingestor/Rocket.toml (ROCKET_CONFIG)" \
        'unit: the service may not write to /srv/wal (WAL_DIR)'; do
        must "$line" grep -qF "FAIL $line" "$LOG_DIR/doctor.log"
    done
    inside chmod 640 /etc/iot-ingestor/Rocket.toml
    inside mv /root/ingestor.env /etc/iot-ingestor/ingestor.env
    inside rm /etc/admin-token
    inside ingestor doctor >"$LOG_DIR/doctor.log" 2>&1 || broken "ingestor doctor: $(cat "$LOG_DIR/doctor.log")"
    holds
}

# changes_under_load RULE PACKAGE VERSION: the service is restarted in order, with what waits in its log.
changes_under_load() {
    rule "$1"
    local before since pid began ended
    stop_postgresql
    publish 500
    within 10 'they wait' at_least_pending 500
    inside sh -c 'echo "# edited" | tee -a /etc/iot-ingestor/ingestor.env >>/etc/iot-ingestor/Rocket.toml'
    before=$(settings)
    pid=$(main_pid)
    since=$(($(millis) / 1000))
    # More than there is time for.
    begin_publishing 600000
    within 10 'it takes messages in' at_least_pending 800
    began=$EPOCHREALTIME
    apt install --allow-downgrades "/packages/$2"
    ended=$EPOCHREALTIME
    must 'there is load to the end' kill -0 "$SIMULATOR_PID"
    equal "$3 installed" "$(installed)" 'the package'
    must_fail 'it is the old process' test "$pid" == "$(main_pid)"
    must 'the old one has stopped in order' journal_has "$since" '"message":"stopped' >/dev/null
    equal "$before" "$(settings)" 'settings and secrets'
    stop_publishing
    inside systemctl start postgresql
    nothing_is_lost
    local meanwhile
    meanwhile=$(ask "select count(*) from telemetry where ts between to_timestamp($began) and to_timestamp($ended)")
    ((meanwhile > 0)) || broken 'no reading of the time of the exchange is there'
    say "       $meanwhile readings came in meanwhile"
    holds
}

at_least_pending() { (($(metric ingestor_wal_pending_records) >= $1)); }

settings() { inside sh -c 'cat /etc/iot-ingestor/ingestor.env /etc/iot-ingestor/Rocket.toml /etc/iot-ingestor/secrets/*' | sha256sum; }

# Files of ours, but for what the machine writes about all packages.
left_over() {
    inside find / -xdev '(' -path /packages -o -path /src -o -path /proc -o -path /run -o -path /sys -o -path /var/log ')' -prune \
        -o -name '*iot-ingestor*' -print
}

goes() {
    rule 'removed, it leaves settings and log; purged, it keeps a log with readings that are nowhere else, and says so'
    stop_postgresql
    publish 50
    within 10 'they wait' at_least_pending 50
    apt remove iot-ingestor
    must_fail 'the program is gone' inside test -e /usr/bin/ingestor
    must 'the settings are there' inside test -e /etc/iot-ingestor/ingestor.env
    apt purge iot-ingestor
    must 'it says what it keeps' grep -q 'kept /var/lib/iot-ingestor' "$LOG_DIR/apt.log"
    must_fail 'the settings are gone' inside test -e /etc/iot-ingestor
    must 'the log is there' inside test -e /var/lib/iot-ingestor/wal
    holds

    rule 'installed again it brings them into the database'
    set_up "$1"
    nothing_is_lost
    within 30 'nothing waits' metric_is ingestor_wal_pending_records 0
    holds
}

# set_up PACKAGE: installs it, and starts the service.
set_up() {
    apt install "/packages/$1"
    inside systemctl start postgresql
    within 30 'PostgreSQL answers' inside runuser -u postgres -- psql -q -c 'select 1'
    inside ingestor init --broker localhost --database "$DATABASE_URL" --yes >"$LOG_DIR/init.log" 2>&1 ||
        broken "ingestor init: $(cat "$LOG_DIR/init.log")"
    inside systemctl start "$SERVICE"
}

STATE=/var/lib/iot-ingestor

# What a removal finds of the log.
look_whether_drained() { inside sh -x /var/lib/dpkg/info/iot-ingestor.prerm remove >"$LOG_DIR/prerm.log" 2>&1; }

# is_drained WHEN: shows how that was found out, if it was not.
is_drained() { inside test -e "$STATE/.drained" || { show_log prerm && broken "$1"; }; }

# By a program that somebody starts, and while the database is away.
is_used_without_the_package() {
    stop_postgresql
    inside systemd-run --quiet --unit=by-hand --uid="$SERVICE" --setenv=WAL_DIR="$STATE/wal" \
        --setenv=DATABASE_URL="$DATABASE_URL" /bin-under-test/ingestor
    publish 50
    within 10 'they wait' at_least_pending 50
    inside systemctl stop by-hand
}

is_kept() {
    inside sh /var/lib/dpkg/info/iot-ingestor.postrm purge >"$LOG_DIR/postrm.log" 2>&1
    must 'it says what it keeps' grep -q "kept $STATE" "$LOG_DIR/postrm.log"
    must 'the log is there' inside test -e "$STATE/wal"
}

knows_what_is_nowhere_else() {
    rule 'a log counts as drained if nothing waits in it and all of it is known, and until it is used again'
    look_whether_drained
    is_drained 'nothing waits'
    local file
    for file in elsewhere/db wal/quarantine/00000000000000000000/db wal/dead-letters/unread wal/newer; do
        inside install -D /etc/hostname "$STATE/$file"
        look_whether_drained
        must_fail "it counts with $file" inside test -e "$STATE/.drained"
        inside rm "$STATE/$file"
    done
    inside rmdir "$STATE/elsewhere"
    look_whether_drained
    is_drained 'nothing waits again'
    apt remove iot-ingestor
    # Older than the removal, like all that is put back.
    inside sh -c "cp --archive /etc/hostname $STATE/wal/restored && touch --date=@0 $STATE/wal"
    is_kept
    inside rm "$STATE/wal/restored"
    set_up "$1"
    within 30 'nothing waits' metric_is ingestor_wal_pending_records 0
    apt remove iot-ingestor
    must 'nothing waited' inside test -e "$STATE/.drained"
    is_used_without_the_package
    is_kept
    holds
}

# install_service ARGUMENT...: without a package.
install_service() { inside /src/scripts/install-service.sh "$@" >"$LOG_DIR/install.log" 2>&1; }

leaves_the_other_alone() {
    rule 'package and install-service.sh refuse what the other has installed, and touch nothing of it'
    set_up "$1"
    local pid
    pid=$(main_pid)
    must_fail 'it takes the place of the package' install_service --binary /bin-under-test/ingestor
    must_fail 'it removes the package' install_service --uninstall --purge
    must 'it says why' grep -q 'the package iot-ingestor is installed' "$LOG_DIR/install.log"
    equal "$pid" "$(main_pid)" 'the process'
    inside ingestor health --ready >/dev/null
    apt remove iot-ingestor
    must 'nothing waited' inside test -e "$STATE/.drained"
    must_fail 'it removes what the package left' install_service --uninstall --purge
    must 'the settings are there' inside test -e /etc/iot-ingestor/ingestor.env

    install_service --binary /bin-under-test/ingestor || broken "install-service.sh: $(cat "$LOG_DIR/install.log")"
    pid=$(main_pid)
    must_fail 'what the removal found still counts' inside test -e "$STATE/.drained"
    must_fail 'the package is installed beside it' \
        inside env DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet install "/packages/$1"
    apt purge iot-ingestor
    must 'it says what it keeps' grep -q "kept /etc/iot-ingestor, $STATE and their user" "$LOG_DIR/apt.log"
    equal "$pid" "$(main_pid)" 'the process of install-service.sh'
    equal enabled "$(inside systemctl is-enabled "$SERVICE")" 'at boot'
    publish 50
    nothing_is_lost
    within 30 'nothing waits' metric_is ingestor_wal_pending_records 0
    install_service --uninstall || broken "install-service.sh: $(cat "$LOG_DIR/install.log")"
    holds
}

leaves_nothing() {
    rule 'purged with nothing waiting it leaves nothing, but for a disk that is mounted, which it empties'
    inside sh -c "rm -r $STATE/* && mount -t tmpfs tmpfs $STATE"
    set_up "$1"
    equal enabled "$(inside systemctl is-enabled "$SERVICE")" 'at boot, after install-service.sh was here'
    publish 50
    nothing_is_lost
    within 30 'nothing waits' metric_is ingestor_wal_pending_records 0
    apt purge iot-ingestor
    must 'it says so' grep -q "emptied $STATE" "$LOG_DIR/apt.log"
    equal '' "$(inside find "$STATE" -mindepth 1)" 'what is left on the disk'
    inside umount "$STATE"
    inside rmdir "$STATE"
    equal '' "$(left_over)" 'what is left'
    must_fail 'the user is gone' inside id "$SERVICE"
    must_fail 'the service is gone' inside systemctl cat "$SERVICE"
    holds
}

main() {
    begin iot-deploy-package
    ip link set lo up
    make_machine
    layer "$PACKAGES" "$ROOT/packages"
    layer "$PWD" "$ROOT/src"
    boot
    start_servers
    local old new
    old=$(basename "$PACKAGES"/iot-ingestor_*-1_*.deb) new=$(basename "$PACKAGES"/iot-ingestor_*-2_*.deb)
    comes_up "$old"
    is_told_what_the_service_may_not
    changes_under_load 'an upgrade under load restarts the service in order with what waits in its log, and nothing is lost' \
        "$new" "$(version_of "$new")"
    changes_under_load 'a rollback does the same' "$old" "$(version_of "$old")"
    goes "$new"
    knows_what_is_nowhere_else "$new"
    leaves_the_other_alone "$new"
    leaves_nothing "$new"
    inside systemctl poweroff 2>/dev/null || true
    must 'the machine powers off' await_end "$NSPAWN_PID" 60
}

# version_of FILE: the part between the underscores.
version_of() {
    local rest=${1#*_}
    printf '%s' "${rest%_*}"
}

main "$@"
