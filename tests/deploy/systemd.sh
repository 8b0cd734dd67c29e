#!/usr/bin/env bash
# The service on a real systemd: a whole Debian is booted in a container of its own network, and the
# scripts of this repository are run in it as a person would run them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=tests/deploy/lib.sh
source tests/deploy/lib.sh

# shellcheck source=tests/deploy/machine.sh
source tests/deploy/machine.sh

# --- the rules -----------------------------------------------------------------------------------

install_service() {
    inside /src/scripts/install-service.sh "$@" >"$LOG_DIR/install.log" 2>&1 ||
        broken "install-service.sh $* failed: $(cat "$LOG_DIR/install.log")"
}

start_dependencies() {
    inside /src/scripts/start-dependencies.sh >"$LOG_DIR/dependencies.log" 2>&1 ||
        broken "start-dependencies.sh failed: $(cat "$LOG_DIR/dependencies.log")"
}

starts_alone() {
    rule 'install-service.sh builds the program, and brings the service up without a database or a broker'
    # With what is built already, as long as the settings of cargo are the same.
    inside env ${CARGO_INCREMENTAL:+CARGO_INCREMENTAL="$CARGO_INCREMENTAL"} CARGO_NET_OFFLINE=true \
        /src/scripts/install-service.sh >"$LOG_DIR/install.log" 2>&1 ||
        { show_log install && broken 'install-service.sh'; }
    must 'it was built' grep -q 'building the release binary' "$LOG_DIR/install.log"
    must 'it is what was built' inside cmp /usr/local/bin/ingestor /bin-under-test/ingestor
    equal active "$(property ActiveState)" state
    equal '0 readings pending in the log' "$(property StatusText)" 'status text'
    must 'it says that it lives' inside ingestor health >/dev/null
    must_fail 'it is not ready without a broker' inside ingestor health --ready
    equal enabled "$(inside systemctl is-enabled "$SERVICE")" 'at boot'
    holds

    rule 'the running service is confined, and its secrets are its own'
    must 'the exposure is at most 1.5' inside systemd-analyze security --no-pager --threshold=15 "$SERVICE" >/dev/null
    local status
    status=$(inside cat "/proc/$(main_pid)/status")
    must 'it has no capability' grep -Eq 'CapEff:\s0+$' <<<"$status"
    must 'system calls are filtered' grep -Eq 'Seccomp:\s2' <<<"$status"
    must_fail 'it does not run as root' grep -Eq 'Uid:\s0' <<<"$status"
    equal '700 root' "$(inside stat -c '%a %U' /etc/iot-ingestor/secrets)" 'the secrets'
    equal '600 root' "$(inside stat -c '%a %U' /etc/iot-ingestor/ingestor.env)" 'the settings'
    equal "640 root $SERVICE" "$(inside stat -c '%a %U %G' /etc/iot-ingestor/Rocket.toml)" 'the mappings'
    equal "700 $SERVICE" "$(inside stat -c '%a %U' /var/lib/iot-ingestor)" 'the data'
    must_fail 'no secret is in the environment' grep -q postgres:// <<<"$(inside cat "/proc/$(main_pid)/environ" | tr '\0' '\n')"
    holds
}

gets_its_servers() {
    rule 'start-dependencies.sh brings PostgreSQL and Mosquitto, for this machine alone, and the service finds them'
    start_dependencies
    within 30 'it is ready' inside ingestor health --ready
    within 30 'the database is up' metric_is ingestor_db_up 1
    local open
    open=$(inside ss -Hltn | awk '{ print $4 }' | grep -Ev '^(127\.0\.0\.1|\[::1\]):' || true)
    equal '' "$open" 'what other machines reach'
    equal C "$(inside runuser -u postgres -- psql -X -A -t -d iotdb -c "$COLLATION")" 'how device ids are compared'
    publish 200
    nothing_is_lost
    holds

    rule 'start-dependencies.sh and install-service.sh change nothing when run again'
    local before after
    before=$(main_pid)
    start_dependencies
    install_service --binary /bin-under-test/ingestor
    after=$(main_pid)
    equal "$before" "$after" 'the process'
    holds

    rule 'start-dependencies.sh takes back what Mosquitto does not start with'
    local limits=/etc/mosquitto/conf.d/iot-ingestor-limits.conf
    inside sh -c "echo '# an older version' >$limits && echo nonsense >/etc/mosquitto/conf.d/broken.conf"
    inside rm /etc/mosquitto/conf.d/iot-ingestor-loopback.conf
    must_fail 'it starts' inside /src/scripts/start-dependencies.sh
    equal '# an older version' "$(inside cat "$limits")" 'the configuration'
    must_fail 'what was new is gone' inside test -e /etc/mosquitto/conf.d/iot-ingestor-loopback.conf
    inside rm /etc/mosquitto/conf.d/broken.conf
    inside systemctl reset-failed mosquitto
    start_dependencies
    must 'the limits are those of this version' inside cmp "$limits" /src/deploy/mosquitto/limits.conf
    equal 2 "$(inside sh -c 'ls /etc/mosquitto/conf.d/iot-ingestor-* | wc -l')" 'files of ours'
    within 60 'it is ready' inside ingestor health --ready
    publish 100
    nothing_is_lost
    holds
}

# comes_back OLD_PID SINCE_MILLIS LIMIT_MILLIS
comes_back() {
    local pid took
    until pid=$(main_pid) && [[ $pid != "$1" && $pid != 0 ]] && inside ingestor health >/dev/null 2>&1; do
        (($(millis) - $2 < 60000)) || broken "it does not come back"
        sleep 0.05
    done
    took=$(($(millis) - $2))
    ((took <= $3)) || broken "it took $took ms to come back, at most $3 are allowed"
    say "       back after $took ms"
}

survives_kill() {
    rule 'killed under load, it is back within two seconds, and nothing is lost'
    local pid since
    begin_publishing 4000
    within 10 'it takes messages in' at_least ingestor_messages_total 700
    pid=$(main_pid)
    since=$(millis)
    inside kill -KILL "$pid"
    comes_back "$pid" "$since" 2000
    end_publishing
    nothing_is_lost
    holds
}

at_least() { (($(metric "$1") >= $2)); }

survives_hang() {
    rule 'a process that hangs is restarted by the watchdog, and nothing is lost'
    equal 1min "$(property WatchdogUSec)" 'the patience as shipped'
    # A minute as shipped; here it need not be waited for.
    inside mkdir -p "/run/systemd/system/$SERVICE.service.d"
    inside sh -c "printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/$SERVICE.service.d/short.conf"
    inside systemctl daemon-reload
    inside systemctl restart "$SERVICE"
    local pid since
    pid=$(main_pid)
    begin_publishing 6000
    within 10 'it takes messages in' at_least ingestor_messages_total 500
    since=$(millis)
    inside kill -STOP "$pid"
    comes_back "$pid" "$since" 8000
    must 'the watchdog did it' journal_has "$((since / 1000))" 'Watchdog timeout' >/dev/null
    end_publishing
    nothing_is_lost
    inside rm "/run/systemd/system/$SERVICE.service.d/short.conf"
    inside systemctl daemon-reload
    holds
}

stops_in_order() {
    rule 'stopped under load, it ends in order, and nothing is lost'
    local since
    since=$(($(millis) / 1000))
    local before
    before=$(metric ingestor_messages_total)
    begin_publishing 4000
    within 10 'it takes messages in' at_least ingestor_messages_total $((before + 500))
    inside systemctl stop "$SERVICE"
    equal 'inactive success 0' "$(property ActiveState) $(property Result) $(property ExecMainStatus)" 'the end'
    must 'it says that it stopped' journal_has "$since" '"message":"stopped' >/dev/null
    inside systemctl start "$SERVICE"
    end_publishing
    nothing_is_lost
    holds
}

refuses_nonsense() {
    rule 'a bad configuration is named in the journal, and not tried again and again'
    local since
    since=$(($(millis) / 1000))
    inside sed -i 's/^HTTP_ADDR=.*/HTTP_ADDR=nonsense/' /etc/iot-ingestor/ingestor.env
    must_fail 'it starts' inside systemctl restart "$SERVICE"
    # A service that will be started again is not failed, but "activating (auto-restart)".
    equal 'failed failed 64' "$(property ActiveState) $(property SubState) $(property ExecMainStatus)" 'the end'
    must 'the setting is named' journal_has "$since" 'HTTP_ADDR: expected' >/dev/null
    inside sed -i 's/^HTTP_ADDR=.*/HTTP_ADDR=127.0.0.1:8080/' /etc/iot-ingestor/ingestor.env
    inside systemctl restart "$SERVICE"
    within 10 'it lives' inside ingestor health
    holds
}

# Without the database, so that readings wait in the log.
keeps_what_waits() {
    rule 'an upgrade runs the new program with the settings, the secrets and the log of the old one'
    stop_postgresql
    publish 500
    # The broker has acknowledged them, which is not yet that they are here.
    within 10 'they wait' metric_is ingestor_wal_pending_records 500
    local before
    inside sh -c 'echo "# edited" >>/etc/iot-ingestor/ingestor.env'
    before=$(settings)
    # The same program, but not the same file.
    inside sh -c 'cp /bin-under-test/ingestor /root/ingestor && echo >>/root/ingestor'
    install_service --binary /root/ingestor
    must 'the new program runs' inside cmp "/proc/$(main_pid)/exe" /root/ingestor
    must 'the old one is kept' inside cmp /usr/local/bin/ingestor.previous /bin-under-test/ingestor
    equal "$before" "$(settings)" 'settings and secrets'
    must 'there are the settings of this version beside them' inside cmp /etc/iot-ingestor/ingestor.env.example /src/deploy/systemd/ingestor.env
    equal 500 "$(metric ingestor_wal_pending_records)" 'pending after'
    holds

    rule 'an upgrade that was interrupted before the restart is ended by the next'
    local pid
    pid=$(main_pid)
    inside install /bin-under-test/ingestor /usr/local/bin/ingestor.part
    inside mv /usr/local/bin/ingestor.part /usr/local/bin/ingestor
    install_service --binary /bin-under-test/ingestor
    must 'the new program runs' inside cmp "/proc/$(main_pid)/exe" /bin-under-test/ingestor
    must_fail 'it is the old process' test "$pid" == "$(main_pid)"
    pid=$(main_pid)
    # Put there anew, and not read by systemd yet.
    inside touch "/etc/systemd/system/$SERVICE.service"
    install_service --binary /bin-under-test/ingestor
    must_fail 'it is the process of the old unit' test "$pid" == "$(main_pid)"
    equal 500 "$(metric ingestor_wal_pending_records)" 'pending after'
    holds

    rule 'after a reboot it runs again with what was in its log, with the database down, and nothing is lost'
    inside systemctl disable --quiet postgresql
    reboot
    within 10 'it is active' is_active
    within 10 'it lives' inside ingestor health
    equal 500 "$(metric ingestor_wal_pending_records)" 'pending after the reboot'
    publish 100
    inside systemctl start postgresql
    nothing_is_lost
    holds
}

settings() { inside sh -c 'cat /etc/iot-ingestor/ingestor.env /etc/iot-ingestor/secrets/*' | sha256sum; }

# By the commands of the README, on a box from which everything was removed.
comes_back_from_a_backup() {
    rule 'settings, database and log that were backed up come back on a new box, and nothing is lost'
    inside sh -c 'runuser -u postgres -- pg_dump -Fc iotdb >/root/iotdb.dump'
    inside tar -czf /root/settings.tar.gz /etc/iot-ingestor 2>/dev/null
    stop_postgresql
    publish 300
    within 10 'they wait' metric_is ingestor_wal_pending_records 300
    inside systemctl stop "$SERVICE"
    inside tar -czf /root/wal.tar.gz /var/lib/iot-ingestor 2>/dev/null
    install_service --uninstall --purge
    inside systemctl start postgresql
    within 30 'PostgreSQL answers' inside runuser -u postgres -- psql -q -c 'drop database iotdb with (force)'
    inside runuser -u postgres -- psql -q -c 'drop role iot'

    inside tar -xzf /root/settings.tar.gz -C /
    start_dependencies
    inside sh -c 'runuser -u postgres -- pg_restore --clean --if-exists -d iotdb </root/iotdb.dump'
    inside tar -xzf /root/wal.tar.gz -C /
    install_service --binary /bin-under-test/ingestor
    within 30 'it is ready' inside ingestor health --ready
    publish 100
    nothing_is_lost
    holds
}

goes() {
    rule '--uninstall keeps settings and data, and --purge leaves nothing'
    # The restored database is another one, to which what was retained is sent again.
    within 30 'nothing waits' metric_is ingestor_wal_pending_records 0
    stop_postgresql
    publish 50
    within 10 'they wait' metric_is ingestor_wal_pending_records 50
    install_service --uninstall
    must_fail 'the service is gone' inside systemctl cat "$SERVICE"
    must_fail 'the program is gone' inside test -e /usr/local/bin/ingestor
    must 'the settings are there' inside test -e /etc/iot-ingestor/ingestor.env
    install_service --binary /bin-under-test/ingestor
    equal 50 "$(metric ingestor_wal_pending_records)" 'pending after it was installed again'
    install_service --uninstall --purge
    for left in /etc/iot-ingestor /var/lib/iot-ingestor /etc/systemd/system/iot-ingestor.service /usr/local/bin/ingestor; do
        must_fail "$left is gone" inside test -e "$left"
    done
    must_fail 'the user is gone' inside id "$SERVICE"
    holds
}

main() {
    begin iot-deploy-systemd
    ip link set lo up
    make_machine
    give_sources
    boot
    starts_alone
    gets_its_servers
    survives_kill
    survives_hang
    stops_in_order
    refuses_nonsense
    keeps_what_waits
    comes_back_from_a_backup
    goes
    inside systemctl poweroff 2>/dev/null || true
    must 'the machine powers off' await_end "$NSPAWN_PID" 60
}

main "$@"
