# Shared by the deployment tests, which scripts/test-deploy.sh runs each in namespaces of its own: its
# processes, mounts and network end with it. To be sourced after scripts/lib.sh.
# shellcheck shell=bash

# Set by scripts/test-deploy.sh: where each check is noted, and the root file systems.
: "${RESULTS:?run scripts/test-deploy.sh}" "${MACHINE_TREE:?}" "${DOCKER_TREE:?}"

# rule SENTENCE: what is looked at from here on, until `holds`.
rule() { RULE=$1; }

# The rule held.
holds() {
    printf 'passed %s\n' "$RULE" >>"$RESULTS"
    say "   ok  $RULE"
    RULE=''
}

# broken TEXT: the rule did not hold.
broken() {
    complain "   NOT $RULE"
    fail "       $1"
}

# equal EXPECTED FOUND WHAT
equal() { [[ $1 == "$2" ]] || broken "$3: expected $1, found $2"; }

# must WHAT COMMAND...: COMMAND succeeds.
must() {
    local what=$1
    shift
    "$@" || broken "$what"
}

# must_fail WHAT COMMAND...
must_fail() {
    local what=$1
    shift
    ! "$@" >/dev/null 2>&1 || broken "$what"
}

# skip REASON: this machine cannot run the test.
skip() {
    say "   SKIPPED: $1"
    exit 77
}

# within SECONDS WHAT COMMAND...: until COMMAND succeeds; shows what it said last if it does not.
within() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$LOG_DIR/within.log" 2>&1; do
        ((SECONDS < deadline)) || broken "in time: $what: $(cat "$LOG_DIR/within.log")"
        sleep 0.1
    done
}

# How a database compares device ids.
# shellcheck disable=SC2034  # for whoever sources this
COLLATION='select datcollate from pg_database where datname = current_database()'

millis() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }
