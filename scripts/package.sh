#!/usr/bin/env bash
# A package for Debian and Ubuntu, from this clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/package.sh [--target TRIPLE] [--version VERSION] [--binaries DIR] [--output DIR]

Makes iot-ingestor_VERSION_ARCH.deb, and beside it the debug symbols as
iot-ingestor-dbgsym_….ddeb. cargo-deb is installed below target/tools if it is missing; lintian looks at the
package if it is there. What cargo builds is where CARGO_TARGET_DIR says, or in target.

  --target TRIPLE    for another machine: aarch64-unknown-linux-gnu, armv7-unknown-linux-gnueabihf, …
  --version VERSION  of the package, such as 0.2.0-1 [default: that of Cargo.toml, revision 1]
  --binaries DIR     of these programs, which are built already
  --output DIR       where the package goes [default: debian in the directory of what is built]
  --help             this text
TEXT
}

BUILT=${CARGO_TARGET_DIR:-target}
# That of Cargo.toml; tests take the one that they have built already.
PROFILE=${BUILD_PROFILE:-dist}
# What a maintainer's scripts, lintian and copyright say: deploy/debian. What is generated goes here, and
# Cargo.toml says where each file of the package comes from.
STAGE=target/package
TARGET='' VERSION='' BINARIES='' OUTPUT=$BUILT/debian

# Debian's name of the machine, and the packages that link and compile for it.
declare -A LINKERS=(
    [aarch64-unknown-linux-gnu]='aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu,libc6-dev-arm64-cross'
    [armv7-unknown-linux-gnueabihf]='arm-linux-gnueabihf-gcc=gcc-arm-linux-gnueabihf,libc6-dev-armhf-cross'
    [x86_64-unknown-linux-musl]='musl-gcc=musl-tools'
)

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --target | --version | --binaries | --output)
                (($# > 1)) || bad_usage "$1 needs a value"
                case $1 in
                    --target) TARGET=$2 ;;
                    --version) VERSION=$2 ;;
                    --binaries) BINARIES=$2 ;;
                    *) OUTPUT=$2 ;;
                esac
                shift
                ;;
            *) other_argument "$1" ;;
        esac
        shift
    done
}

# check_target: whether this machine can build for TARGET; says what is missing. Sets the linker.
check_target() {
    local linker packages missing=() name
    [[ -n $TARGET ]] || return 0
    ! command -v rustup >/dev/null || rustup target list --installed | grep -qx "$TARGET" ||
        missing+=("rustup target add $TARGET")
    if [[ -n ${LINKERS[$TARGET]:-} ]]; then
        linker=${LINKERS[$TARGET]%%=*}
        packages=${LINKERS[$TARGET]#*=}
        command -v "$linker" >/dev/null || missing+=("apt-get install ${packages//,/ }")
        name=${TARGET//-/_}
        export "CARGO_TARGET_${name^^}_LINKER=$linker" "CC_$name=$linker"
    fi
    ((${#missing[@]} == 0)) || fail "to build for $TARGET: $(printf '%s; ' "${missing[@]}")"
}

build() {
    if [[ -n $BINARIES ]]; then
        local there="$BUILT/${TARGET:+$TARGET/}$PROFILE"
        [[ $BINARIES -ef $there ]] || install -D -t "$there" "$BINARIES"/{ingestor,simulator}
        return
    fi
    say "building the binaries (cargo, profile $PROFILE)…"
    run_child cargo cargo build --profile "$PROFILE" --locked --bins ${TARGET:+--target "$TARGET"} || fail "cargo build failed"
    # One of this machine, which writes its own manual.
    [[ -z $TARGET ]] || run_child cargo cargo build --profile "$PROFILE" --locked --bins || fail "cargo build failed"
}

stage() {
    local date
    rm -rf -- "$STAGE"
    mkdir -p "$STAGE"/{debian,man,completions}
    "$BUILT/$PROFILE/ingestor" --write-manual "$STAGE" || fail "the manual could not be written"
    "$BUILT/$PROFILE/simulator" --write-manual "$STAGE" || fail "the manual could not be written"
    gzip -9 -n "$STAGE"/man/*
    cp deploy/debian/{preinst,postinst,prerm,postrm} "$STAGE/debian"
    # What a package installs is in /usr.
    sed 's|/usr/local/bin/|/usr/bin/|; s|^# .*scripts/install-service.sh.*|# The ingestor as a system service; settings go into|' \
        deploy/systemd/iot-ingestor.service >"$STAGE/debian/iot-ingestor.service"
    # Under the names that postinst is given by cargo-deb.
    install -D -m 644 deploy/systemd/sysusers.conf "$STAGE/sysusers.d/iot-ingestor.conf"
    install -D -m 644 deploy/systemd/tmpfiles.conf "$STAGE/tmpfiles.d/iot-ingestor.conf"
    cp deploy/debian/lintian-overrides "$STAGE"
    gzip -9 -n <CHANGELOG.md >"$STAGE/changelog.gz"
    date=$(date --utc --rfc-email --date="@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")
    printf 'iot-ingestor (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' \
        "$VERSION" "$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)" "$date" >"$STAGE/changelog.Debian"
}

package() {
    local arguments=(--no-build --profile "$PROFILE" --dbgsym --deb-version "$VERSION" --output "$OUTPUT/") deb
    mkdir -p "$OUTPUT"
    [[ -z $TARGET ]] || arguments+=(--target "$TARGET")
    run_child cargo-deb cargo-deb "${arguments[@]}" >"$WORK_DIR/package" || fail "cargo-deb failed"
    deb=$(grep '\.deb$' "$WORK_DIR/package" | tail -n 1)
    [[ -e $deb ]] || fail "cargo-deb has made no package"
    if command -v lintian >/dev/null; then
        # As root it warns of itself. What a newer one warns of is for whoever reads it.
        lintian --allow-root --fail-on error "$deb" || fail "lintian finds fault with $deb"
    else
        say "lintian is not there, and has not looked at it"
    fi
    say "$deb"
}

main() {
    read_arguments "$@"
    begin iot-package
    need_cargo
    need_commands cc=gcc,libc6-dev dpkg-shlibdeps=dpkg-dev strip=binutils
    check_target
    cargo_tool cargo-deb 3.8.0 || fail "cargo-deb could not be installed, see above"
    [[ -n $VERSION ]] || VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)-1
    build
    stage
    package
}

main "$@"
