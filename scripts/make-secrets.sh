#!/usr/bin/env bash
# The passwords, and on request the certificates and logins, of deploy/docker-compose.yml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/make-secrets.sh [--secure [NAME...]] [--device ID]...

Makes random passwords for the compose file in deploy/secrets, each in a file of its own. What is there
already stays as it is, so it is safe to run again.

  --secure [NAME...]   also what docker-compose.secure.yml needs: an authority (mqtt-ca.pem, which devices
                       get), the broker's certificate for NAME... (host names or addresses by which devices
                       reach it; always for mosquitto, localhost and 127.0.0.1), and logins for the ingestor
                       and the device sensor-001. With other NAMEs than before, and in its last 60 days, the
                       certificate is made anew; then: docker compose … restart mosquitto
  --device ID          a login for the device ID, which may then publish to telemetry/ID; its password is in
                       deploy/secrets/mqtt-ID. Afterwards: docker compose … restart mosquitto
  --help               this text
TEXT
}

DIR=${SECRETS_DIR:-deploy/secrets}
SECURE='' NAMES=() DEVICES=()
# Ten years for the authority; the broker's is made anew when it is near its end.
CA_DAYS=3650 SERVER_DAYS=825 RENEWAL_DAYS=60

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --secure) SECURE=yes ;;
            --device)
                [[ ${2:-} =~ ^[A-Za-z0-9._-]{1,128}$ ]] || bad_usage "--device needs an ID of letters, digits, . _ -"
                # These are names of other files, or of the ingestor itself.
                [[ ! $2 =~ ^(ca\..*|server\..*|passwords|ingestor)$ ]] || bad_usage "--device: $2 is taken, choose another ID"
                DEVICES+=("$2")
                shift
                ;;
            -*) other_argument "$1" ;;
            *)
                [[ -n $SECURE ]] || bad_usage "a NAME goes with --secure"
                [[ $1 =~ ^[A-Za-z0-9.:-]+$ ]] || bad_usage "not a host name or an address: $1"
                NAMES+=("$1")
                ;;
        esac
        shift
    done
}

# keep NAME: whether that file is there; says so if not.
keep() {
    [[ ! -e $DIR/$1 ]] || return 0
    say "  $DIR/$1"
    return 1
}

# Containers run as users of their own, which have to read them; on this machine the directory keeps
# everybody else out.
put() {
    cat >"$DIR/$1.part"
    chmod 444 "$DIR/$1.part"
    mv -f "$DIR/$1.part" "$DIR/$1"
}

password() { keep "$1" || random_secret | put "$1"; }

make_passwords() {
    password postgres-password
    password grafana-password
    password dashboard-password
    password admin-token
    make_database_login
}

# The password of the role iot, once by itself and once in the connection string. A connection string
# that was there before is what counts: the database has its password.
make_database_login() {
    local url=postgres://iot:%s@postgres:5432/iotdb
    if [[ ! -e $DIR/database-password && -e $DIR/database-url ]]; then
        say "  $DIR/database-password"
        sed -n 's|^postgres://[^:]*:\([^@]*\)@.*|\1|p' "$DIR/database-url" | put database-password
    fi
    password database-password
    # shellcheck disable=SC2059 # the format is ours
    keep database-url || printf "$url\n" "$(<"$DIR/database-password")" | put database-url
}

make_certificates() {
    local name names='DNS:mosquitto,DNS:localhost,IP:127.0.0.1'
    for name in "${NAMES[@]}"; do
        if [[ $name =~ ^[0-9.]+$|: ]]; then names+=",IP:$name"; else names+=",DNS:$name"; fi
    done
    if ! keep mqtt-ca.pem; then
        # What another authority signed is of no use.
        rm -f -- "$DIR/mqtt-server.names"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$CA_DAYS" \
            -subj '/CN=iot-ingestor authority' -addext basicConstraints=critical,CA:TRUE \
            -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout "$WORK_DIR/ca.key" -out "$WORK_DIR/ca.pem" 2>/dev/null || fail "openssl failed"
        # The key first, or an interrupted run would leave an authority that can sign nothing.
        put mqtt-ca.key <"$WORK_DIR/ca.key"
        # No container needs it.
        chmod 400 "$DIR/mqtt-ca.key"
        put mqtt-ca.pem <"$WORK_DIR/ca.pem"
    fi
    if [[ -e $DIR/mqtt-server.names ]]; then
        ((${#NAMES[@]} > 0)) || names=$(cat "$DIR/mqtt-server.names")
        if [[ $(cat "$DIR/mqtt-server.names") == "$names" ]] &&
            openssl x509 -noout -checkend $((RENEWAL_DAYS * 86400)) -in "$DIR/mqtt-server.pem" >/dev/null 2>&1; then
            return
        fi
    fi
    [[ -e $DIR/mqtt-ca.key ]] ||
        fail "the certificate needs the authority's key: bring it back to $DIR/mqtt-ca.key for as long as this takes"
    say "  $DIR/mqtt-server.pem, for $names"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=mosquitto' \
        -keyout "$WORK_DIR/server.key" -out "$WORK_DIR/server.csr" 2>/dev/null || fail "openssl failed"
    printf '%s\n' "subjectAltName=$names" 'basicConstraints=CA:FALSE' 'extendedKeyUsage=serverAuth' >"$WORK_DIR/server.ext"
    openssl x509 -req -in "$WORK_DIR/server.csr" -CA "$DIR/mqtt-ca.pem" -CAkey "$DIR/mqtt-ca.key" -CAcreateserial \
        -CAserial "$WORK_DIR/serial" -days "$SERVER_DAYS" -extfile "$WORK_DIR/server.ext" \
        -out "$WORK_DIR/server.pem" 2>/dev/null || fail "openssl failed"
    # The names are there only while certificate and key are of one pair.
    rm -f -- "$DIR/mqtt-server.names"
    put mqtt-server.pem <"$WORK_DIR/server.pem"
    put mqtt-server.key <"$WORK_DIR/server.key"
    put mqtt-server.names <<<"$names"
}

# login USER: a password, and its hash in Mosquitto's password file.
login() {
    local hash
    password "mqtt-$1"
    touch "$DIR/mqtt-passwords"
    if ! cut -d: -f1 "$DIR/mqtt-passwords" | grep -qxF -- "$1"; then
        hash=$(password_hash <"$DIR/mqtt-$1")
        { cat "$DIR/mqtt-passwords" && printf '%s:%s\n' "$1" "$hash"; } | put mqtt-passwords
    fi
}

# As mosquitto_passwd makes it: PBKDF2 with SHA-512, salt and hash in base64. The password comes by
# standard input: what stands in a command line can be read by everybody on the machine.
password_hash() {
    python3 -c '
import base64, hashlib, os, sys
iterations, salt = 101, os.urandom(12)
secret = sys.stdin.buffer.read().rstrip(b"\n")
digest = hashlib.pbkdf2_hmac("sha512", secret, salt, iterations)
salt, digest = (base64.b64encode(part).decode() for part in (salt, digest))
print(f"$7${iterations}${salt}${digest}")'
}

main() {
    read_arguments "$@"
    begin iot-secrets
    umask 077
    mkdir -p "$DIR"
    chmod 700 "$DIR"
    make_passwords
    if [[ -n $SECURE ]]; then
        need_commands openssl=openssl python3=python3
        make_certificates
        login ingestor
        login sensor-001
    fi
    local device
    for device in "${DEVICES[@]}"; do
        need_commands python3=python3
        login "$device"
    done
    say "the secrets are in $DIR"
}

main "$@"
