#!/usr/bin/env bash
# The ingestor as a system service: installs it, upgrades it, removes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/install-service.sh [--binary FILE]
       scripts/install-service.sh --uninstall [--purge]

Installs the ingestor as the systemd service iot-ingestor, or upgrades it, and starts it. Needs root
(or sudo) and systemd 247 or newer.

  --binary FILE   install this program instead of building one
  --uninstall     stop and remove the service; settings, secrets and data stay
  --purge         with --uninstall: remove those too, readings that still wait in the log included
  --help          this text

  /usr/local/bin/ingestor                     the program; the one before it as ingestor.previous
  /etc/systemd/system/iot-ingestor.service    the unit; change it with `systemctl edit iot-ingestor`
  /etc/systemd/system/iot-ingestor.service.d/older-systemd.conf    with systemd below 251: its secrets, one by one
  /etc/iot-ingestor/ingestor.env              settings; never overwritten
  /etc/iot-ingestor/Rocket.toml               mappings of devices' own messages; never overwritten
  /etc/iot-ingestor/ingestor.env.example      the settings of this version, with their defaults
  /etc/iot-ingestor/secrets/                  database-url, admin-token, …; never overwritten
  /var/lib/iot-ingestor/                      the log and the dead letters
TEXT
}

NAME=iot-ingestor
PROGRAM=/usr/local/bin/ingestor
UNIT=/etc/systemd/system/$NAME.service
OLDER=$UNIT.d/older-systemd.conf
SETTINGS=/etc/$NAME
STATE=/var/lib/$NAME
BINARY='' UNINSTALL='' PURGE='' CHANGED='' SYSTEMD=''

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --binary)
                (($# > 1)) || bad_usage "--binary needs a file"
                BINARY=$2
                shift
                ;;
            --binary=*) BINARY=${1#*=} ;;
            --uninstall) UNINSTALL=yes ;;
            --purge) PURGE=yes ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
    [[ -z $PURGE || -n $UNINSTALL ]] || bad_usage "--purge goes with --uninstall"
    [[ -z $BINARY || -z $UNINSTALL ]] || bad_usage "--binary does not go with --uninstall"
}

package_status() { dpkg-query --show --showformat='${db:Status-Status}' "$NAME" 2>/dev/null; }

# What a package has installed is its own.
check_package() {
    case $(package_status) in
        '' | not-installed) ;;
        config-files)
            [[ -z $UNINSTALL || -f $UNIT ]] ||
                fail "nothing of this script is here, and what is left is the package's: apt purge $NAME removes it"
            ;;
        *) fail "the package $NAME is installed, and what is here is its own: apt remove $NAME first, which leaves settings and data" ;;
    esac
}

# Sets SYSTEMD, its version. Credentials are read by 247 and newer.
check_systemd() {
    [[ -d /run/systemd/system ]] || fail "systemd does not run here"
    SYSTEMD=$(systemctl --version | awk 'NR == 1 { print $2 + 0 }')
    ((SYSTEMD >= 247)) || fail "systemd 247 or newer is needed, this is $SYSTEMD"
}

find_binary() {
    if [[ -z $BINARY ]]; then
        BINARY=${CARGO_TARGET_DIR:-target}/release/ingestor
        build
    fi
    "$BINARY" --version >/dev/null || fail "$BINARY does not run on this machine"
}

# As the one who called sudo, whose Rust it is and whose files they are.
build() {
    local as=()
    if ((EUID == 0)) && [[ -n ${SUDO_USER:-} ]]; then
        as=(sudo -u "$SUDO_USER" -H)
    fi
    # shellcheck disable=SC2016 # for the inner shell
    local cargo='PATH=$PATH:$HOME/.cargo/bin; cargo'
    if "${as[@]}" bash -c "$cargo --version" >/dev/null 2>&1; then
        # For the crates with C in them, and to link.
        need_commands cc=gcc,libc6-dev
        say 'building the release binary (cargo)…'
        "${as[@]}" bash -c "$cargo build --release --locked --bin ingestor" || fail "cargo build failed"
    elif [[ -x $BINARY ]]; then
        say "cargo is missing, taking $BINARY as it is"
    else
        fail "cargo is missing, and there is no $BINARY: see https://rustup.rs, or use --binary"
    fi
}

# put MODE SOURCE TARGET: as root's, in one step, if it is not there already; says what it did.
put() {
    local mode=$1 source=$2 target=$3
    if as_root cmp --silent "$source" "$target"; then
        say "  $target is up to date"
        return
    fi
    as_root install -D -m "$mode" "$source" "$target.part"
    if [[ $target == "$PROGRAM" ]] && as_root test -e "$target"; then
        as_root cp -p "$target" "$target.previous"
    fi
    as_root mv -f "$target.part" "$target"
    CHANGED=yes
    say "  $target installed"
}

# put_new MODE SOURCE TARGET: the same, but what is there stays as it is.
put_new() {
    if as_root test -e "$3"; then
        say "  $3 left as it is"
    else
        put "$@"
    fi
}

install_service() {
    find_binary
    say "installing $("$BINARY" --version)"
    # What the package of Debian installs too, which is another way to the same.
    as_root systemd-sysusers "$PWD/deploy/systemd/sysusers.conf" || fail "the user $NAME could not be made"
    as_root install -d -m 755 "$SETTINGS"
    # What a package that was here has found of the log, which is in use again.
    as_root rm -f -- "$STATE/.drained"
    put_new 600 deploy/systemd/ingestor.env "$SETTINGS/ingestor.env"
    put_new 640 Rocket.toml "$SETTINGS/Rocket.toml"
    # Directories, and who may read what.
    as_root systemd-tmpfiles --create "$PWD/deploy/systemd/tmpfiles.conf" || fail "the directories could not be made"
    put_secrets
    put 755 "$BINARY" "$PROGRAM"
    put 644 "deploy/systemd/$NAME.service" "$UNIT"
    # Those of a directory by 251 and newer.
    if ((SYSTEMD < 251)); then
        put 644 deploy/systemd/older-systemd.conf "$OLDER"
    elif as_root test -e "$OLDER"; then
        remove_older
        CHANGED=yes
    fi
    local service_changed=$CHANGED
    put 644 deploy/systemd/ingestor.env "$SETTINGS/ingestor.env.example"
    start_service "$service_changed"
    say_what_next
}

remove_older() {
    as_root rm -f -- "$OLDER"
    as_root rmdir --ignore-fail-on-non-empty "$UNIT.d" 2>/dev/null || true
}

put_secrets() {
    (
        umask 077
        printf 'postgres://iot:CHANGE-ME@localhost:5432/iotdb\n' >"$WORK_DIR/database-url"
        random_secret >"$WORK_DIR/admin-token"
    )
    put_new 600 "$WORK_DIR/database-url" "$SETTINGS/secrets/database-url"
    put_new 600 "$WORK_DIR/admin-token" "$SETTINGS/secrets/admin-token"
}

# start_service CHANGED: what has not changed is not restarted.
start_service() {
    local due=$1
    [[ -n $due ]] || runs_what_is_installed || due=yes
    as_root systemctl daemon-reload
    as_root systemctl --quiet enable "$NAME"
    if [[ -n $due ]]; then
        as_root systemctl reset-failed "$NAME" 2>/dev/null || true
        if ! as_root systemctl restart "$NAME"; then
            as_root journalctl --no-pager --lines 20 --unit "$NAME" >&2
            complain "the service does not start, see above"
            as_root test ! -e "$PROGRAM.previous" ||
                complain "the program before it: sudo mv $PROGRAM.previous $PROGRAM && sudo systemctl restart $NAME"
            exit 1
        fi
        say "  $NAME started"
    else
        say "  $NAME runs, and nothing of it has changed"
    fi
}

# Whether it runs, with the program and the unit that are there: an upgrade that was interrupted has put
# them there and started nothing.
runs_what_is_installed() {
    systemctl --quiet is-active "$NAME" &&
        [[ $(systemctl show --property NeedDaemonReload --value "$NAME") == no ]] &&
        as_root cmp --silent "/proc/$(systemctl show --property MainPID --value "$NAME")/exe" "$PROGRAM"
}

say_what_next() {
    say ''
    say "The service runs, and starts with the machine. It takes messages in with or without a database."
    if as_root grep -q CHANGE-ME "$SETTINGS/secrets/database-url"; then
        say "Next:  sudo editor $SETTINGS/secrets/database-url      # PostgreSQL; scripts/start-dependencies.sh makes one here"
        say "       sudo editor $SETTINGS/ingestor.env              # broker, login, TLS, limits"
        say "       sudo systemctl restart $NAME"
    fi
    say "Look:  systemctl status $NAME"
    say "       journalctl -u $NAME -f"
    say "       curl http://127.0.0.1:8080/health/ready"
}

uninstall() {
    # A package that was removed has left the link that enables it; without it, it would take the service for
    # one that somebody has disabled.
    local how=(disable --now)
    [[ $(package_status) != config-files ]] || how=(stop)
    as_root systemctl "${how[@]}" "$NAME" 2>/dev/null || true
    as_root rm -f -- "$UNIT" "$PROGRAM" "$PROGRAM.previous"
    remove_older
    as_root systemctl daemon-reload
    as_root systemctl reset-failed "$NAME" 2>/dev/null || true
    say "stopped and removed: $NAME.service, $PROGRAM"
    if [[ -z $PURGE ]]; then
        say "kept: $SETTINGS, $STATE, the unit's changes of your own, the user $NAME (--purge removes them)"
        return
    fi
    as_root rm -rf -- "$SETTINGS" "$STATE" "$UNIT.d"
    if id -u "$NAME" >/dev/null 2>&1; then
        as_root userdel "$NAME" || complain "the user $NAME could not be removed"
    fi
    as_root systemctl daemon-reload
    say "removed: $SETTINGS, $STATE, the user $NAME"
}

main() {
    read_arguments "$@"
    begin iot-install
    check_package
    check_systemd
    if [[ -n $UNINSTALL ]]; then
        uninstall
    else
        install_service
    fi
}

main "$@"
