#!/usr/bin/env bash
# What is published as a release: checked, tested, packed, listed, summed and signed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/release.sh VERSION [--check] [--no-tests] [--target TRIPLE]... [--base SUITE]
                          [--sign gpg:KEY|minisign:FILE]

Makes target/release-VERSION with a package and an archive for this machine and for each target, a list of
what they are built from (CycloneDX), and SHA256SUMS. Fails before all else if VERSION is not that of
Cargo.toml, if CHANGELOG.md has no section of it or something unreleased, if the tag vVERSION is there
already, or if something is not committed. Nothing is tagged or pushed: what to do is said at the end.

  --check         only that, and nothing is made
  --no-tests      without .ci/run
  --target T      for this machine as well (scripts/package.sh)
  --base SUITE    linked against the C library of that Debian (scripts/package.sh)
  --sign gpg:KEY  signs SHA256SUMS with a key of gpg; or with a secret key file of minisign
  --help          this text
TEXT
}

VERSION='' CHECK='' TESTS=yes SIGN='' BASE='' TARGETS=()

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --check) CHECK=yes ;;
            --no-tests) TESTS='' ;;
            --target | --base | --sign)
                (($# > 1)) || bad_usage "$1 needs a value"
                case $1 in
                    --target) TARGETS+=("$2") ;;
                    --base) BASE=$2 ;;
                    *) SIGN=$2 ;;
                esac
                shift
                ;;
            -*) other_argument "$1" ;;
            *)
                [[ -z $VERSION ]] || bad_usage "one version, and not $VERSION and $1"
                VERSION=$1
                ;;
        esac
        shift
    done
    [[ $VERSION =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || bad_usage "a version such as 0.2.0 is needed"
    [[ -z $SIGN || $SIGN == gpg:?* || $SIGN == minisign:?* ]] || bad_usage "--sign gpg:KEY or --sign minisign:FILE"
}

check() {
    local declared
    declared=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    [[ $declared == "$VERSION" ]] || fail "Cargo.toml says $declared and not $VERSION"
    [[ -n $(section "$VERSION") ]] || fail "CHANGELOG.md has no section \"## $VERSION\" that says something"
    [[ -z $(section Unreleased) ]] || fail "CHANGELOG.md has something under \"Unreleased\": it belongs under \"$VERSION\""
    ! git rev-parse --quiet --verify "refs/tags/v$VERSION" >/dev/null || fail "the tag v$VERSION is there already"
    [[ -z $(git status --porcelain) ]] || fail "something is not committed, see git status"
}

# section NAME: what the changelog says below it.
section() {
    awk -v name="## $1" '/^## / { inside = $0 == name || index($0, name " ") == 1; next } inside && NF' CHANGELOG.md
}

# What the program may have, stripped.
MOST_BYTES=12000000

# pack TRIPLE: package and archive.
pack() {
    local target=$1 name="iot-ingestor-$VERSION-$1" size
    scripts/package.sh --output "$OUT" --target "$target" ${BASE:+--base "$BASE"} || fail "there is no package"
    [[ $target != "$(host_triple)" ]] || "${CARGO_TARGET_DIR:-target}/$target/${BUILD_PROFILE:-dist}/ingestor" --version ||
        fail "what was built does not run"
    mkdir -p "$WORK_DIR/$name"
    cp "${CARGO_TARGET_DIR:-target}/$target/${BUILD_PROFILE:-dist}"/{ingestor,simulator} README.md CHANGELOG.md LICENSE-* Rocket.toml "$WORK_DIR/$name"
    "$(strip_of "$target")" "$WORK_DIR/$name"/{ingestor,simulator}
    size=$(stat --format=%s "$WORK_DIR/$name/ingestor")
    ((size <= MOST_BYTES)) || fail "the program has grown to $size bytes, and may have $MOST_BYTES"
    tar -C "$WORK_DIR" --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$(git log -1 --format=%ct)" -c "$name" | gzip -9 -n >"$OUT/$name.tar.gz"
}

strip_of() {
    case $1 in
        "$(host_triple)") echo strip ;;
        aarch64-*) echo aarch64-linux-gnu-strip ;;
        armv7-*) echo arm-linux-gnueabihf-strip ;;
        *) echo strip ;;
    esac
}

list_parts() {
    cargo_tool cargo-cyclonedx 0.5.9 || fail "cargo-cyclonedx could not be installed, see above"
    run_child sbom cargo cyclonedx --quiet --format json --override-filename sbom || fail "there is no list of parts"
    # Where it was built is nobody's business.
    sed "s|file://$(pwd -P)|file:///iot-ingestor|g" sbom.json >"$OUT/iot-ingestor-$VERSION.cdx.json"
    rm sbom.json
}

sum_and_sign() {
    (cd "$OUT" && sha256sum -- *) >"$WORK_DIR/SHA256SUMS"
    mv "$WORK_DIR/SHA256SUMS" "$OUT"
    case $SIGN in
        gpg:*) gpg --batch --yes --local-user "${SIGN#*:}" --armor --detach-sign "$OUT/SHA256SUMS" || fail "gpg did not sign" ;;
        minisign:*) minisign -S -s "${SIGN#*:}" -m "$OUT/SHA256SUMS" || fail "minisign did not sign" ;;
        *) say "not signed: --sign names a key" ;;
    esac
}

main() {
    read_arguments "$@"
    begin iot-release
    check
    say "$VERSION can be released"
    [[ -z $CHECK ]] || return 0
    need_cargo
    [[ -z $TESTS ]] || .ci/run || fail "the tests fail"
    OUT=target/release-$VERSION
    rm -rf -- "$OUT"
    mkdir -p "$OUT"
    local target
    for target in "$(host_triple)" "${TARGETS[@]}"; do
        pack "$target"
    done
    list_parts
    sum_and_sign
    say ''
    ls -l "$OUT"
    say "Next:  git tag --sign v$VERSION && git push origin v$VERSION, and publish what is in $OUT"
}

main "$@"
