#!/usr/bin/env bash
# Every check of this project: format, dependencies, lints, workflows, documentation, and the tests, which
# start real servers of their own. Ends with the summary of the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/test.sh [--fast] [FILTER...]

Installs what is missing (PostgreSQL, PgBouncer, Mosquitto, strace, openssl, faketime and Python from Debian's or
Ubuntu's packages, Chromium with its driver from Debian's, cargo-nextest and cargo-deny with cargo, and
schemathesis and zizmor with pip into target/tools) and runs every check.

  --fast    without the performance bars, and without installing cargo-deny
  FILTER    only the tests that match, and no other check; handed on to `cargo nextest run`:
            a part of a name such as acks::, or -E EXPRESSION
  --help    this text

The servers are private ones, on free ports of 127.0.0.1 and in temporary directories. As root, they run
as the user postgres.
TEXT
}

FAST='' FILTER=()   # FAST is also the name of nextest's profile

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --fast) FAST=fast ;;
            -h | --help) other_argument "$1" ;;
            *) FILTER+=("$1") ;;
        esac
        shift
    done
}

prepare() {
    need_cargo
    # The compiler is for the crates with C in them.
    need_commands cc=gcc,libc6-dev postgres=postgresql mosquitto=mosquitto \
        mosquitto_passwd=mosquitto mosquitto_pub=mosquitto-clients psql=postgresql-client pgbouncer=pgbouncer \
        strace=strace openssl=openssl setpriv=util-linux faketime=faketime \
        python3=python3,python3-venv
    # Ubuntu has it as a snap alone, which a test cannot start.
    if grep -q '^ID=ubuntu' /etc/os-release && ! command -v chromedriver >/dev/null; then
        say '── the page in a browser: SKIPPED, Ubuntu has no package of Chromium'
    else
        need_commands chromium=chromium chromedriver=chromium-driver
    fi
    cargo_tool cargo-nextest || fail "cargo-nextest could not be installed, see above"
    prepare_schemathesis
}

# The fuzzer of the API's description. Where it cannot be installed the test that needs it is skipped; not on CI.
prepare_schemathesis() {
    if pip_tool schemathesis 4.32.5; then
        export SCHEMATHESIS="$TOOLS/schemathesis/bin/schemathesis"
    else
        [[ -z ${CI:-} ]] || fail "schemathesis could not be installed, see above"
        say '── description of the API: SKIPPED, schemathesis could not be installed, see above'
    fi
}

# step TEXT COMMAND...
step() {
    local text=$1 start=$SECONDS
    shift
    say "── $text"
    run_child check "$@" || fail "failed: $text"
    say "   $((SECONDS - start)) s"
}

check_format() {
    cargo fmt --version >/dev/null 2>&1 || fail "rustfmt is missing: rustup component add rustfmt"
    step 'format' cargo fmt --check
}

# What needs the network (advisories) is not here: its answer changes without a change of ours.
check_dependencies() {
    if [[ -n $FAST ]] && ! command -v cargo-deny >/dev/null; then
        say '── dependencies: SKIPPED, cargo-deny is not installed'
    elif cargo_tool cargo-deny; then
        step 'dependencies: bans, licences, sources' \
            cargo deny --locked --log-level error --config .deny.toml check bans licenses sources
    else
        say '── dependencies: SKIPPED, cargo-deny could not be installed, see above'
    fi
}

check_lints() {
    cargo clippy --version >/dev/null 2>&1 || fail "clippy is missing: rustup component add clippy"
    step 'lints' cargo clippy --release --all-targets --locked -- -D warnings
}

# Of the hosted machines, which nothing here runs: what they would not take, and what would let others in.
check_workflows() {
    if ! pip_tool zizmor 1.32.0; then
        [[ -z ${CI:-} ]] || fail "zizmor could not be installed, see above"
        say '── workflows: SKIPPED, zizmor could not be installed, see above'
        return 0
    fi
    step 'workflows' "$TOOLS/zizmor/bin/zizmor" --offline --strict-collection --quiet .github
}

check_documentation() {
    step 'documentation' env RUSTDOCFLAGS='-D warnings' \
        cargo doc --release --no-deps --document-private-items --locked
    step 'examples in the documentation' cargo test --release --doc --locked
}

run_tests() {
    local status=0
    say '── tests'
    list_skipped
    run_child nextest cargo nextest run --release --locked --profile "${FAST:-default}" "$@" || status=$?
    show_skipped
    return "$status"
}

main() {
    read_arguments "$@"
    begin iot-test
    prepare
    if ((${#FILTER[@]} == 0)); then
        check_format
        check_dependencies
        check_lints
        check_workflows
        check_documentation
    fi
    run_tests "${FILTER[@]}"
}

main "$@"
