#!/usr/bin/env bash
# A package for Debian and Ubuntu, from this clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/package.sh [--target TRIPLE] [--base SUITE] [--version VERSION] [--binaries DIR] [--output DIR]

Makes iot-ingestor_VERSION_ARCH.deb, and beside it the debug symbols as
iot-ingestor-dbgsym_….ddeb. cargo-deb is installed below target/tools if it is missing; lintian looks at the
package if it is there. What cargo builds is where CARGO_TARGET_DIR says, or in target.

  --target TRIPLE    for another machine: aarch64-unknown-linux-gnu, armv7-unknown-linux-gnueabihf, …; with the
                     standard library of rustup, or with Debian's compiler and its library for that machine
  --base SUITE       linked against the C library of that Debian, such as bullseye, so that it runs there and on
                     all that is newer [default: that of this machine]; needs root, or sudo, for debootstrap
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
TARGET='' BASE='' BASE_LIBC='' ASKED_LIBC='' COMPILER=() VERSION='' BINARIES='' OUTPUT=$BUILT/debian

# What links and compiles for a machine, and its packages.
declare -A LINKERS=(
    [aarch64-unknown-linux-gnu]='aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu,libc6-dev-arm64-cross'
    [armv7-unknown-linux-gnueabihf]='arm-linux-gnueabihf-gcc=gcc-arm-linux-gnueabihf,libc6-dev-armhf-cross'
    [x86_64-unknown-linux-musl]='musl-gcc=musl-tools'
)
# Debian's names of machines.
declare -A ARCHITECTURES=(
    [x86_64-unknown-linux-gnu]=amd64 [aarch64-unknown-linux-gnu]=arm64 [armv7-unknown-linux-gnueabihf]=armhf
)

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --target | --base | --version | --binaries | --output)
                (($# > 1)) || bad_usage "$1 needs a value"
                case $1 in
                    --target) TARGET=$2 ;;
                    --base) BASE=$2 ;;
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

# check_target: whether this machine can build for TARGET; says what is missing. Sets the linker, and the compiler.
check_target() {
    local linker packages missing=()
    [[ -n $TARGET ]] || return 0
    if ! has_library rustc; then
        if has_library /usr/bin/rustc; then
            COMPILER=(env RUSTC=/usr/bin/rustc)
            say "with Debian's compiler, which has the standard library of $TARGET: $(/usr/bin/rustc --version)"
        else
            missing+=("rustup target add $TARGET, or $(debian_library)")
        fi
    fi
    if [[ -n ${LINKERS[$TARGET]:-} && $TARGET != "$(host_triple)" ]]; then
        linker=${LINKERS[$TARGET]%%=*}
        packages=${LINKERS[$TARGET]#*=}
        command -v "$linker" >/dev/null || missing+=("apt-get install ${packages//,/ }")
        export "CARGO_TARGET_$(upper "$TARGET")_LINKER=$linker" "CC_${TARGET//-/_}=$linker"
    fi
    ((${#missing[@]} == 0)) || fail "to build for $TARGET: $(printf '%s; ' "${missing[@]}")"
}

upper() {
    local name=${1//-/_}
    printf '%s' "${name^^}"
}

# has_library COMPILER: whether it has the standard library of TARGET.
has_library() {
    local library
    library=$("$1" --print target-libdir --target "$TARGET" 2>/dev/null) && [[ -d $library ]]
}

# Where a Debian has it: rustc-web is the newer one of a stable suite.
debian_library() {
    local arch=${ARCHITECTURES[$TARGET]:-}
    [[ -n $arch ]] || { printf 'a compiler that has it' && return; }
    printf 'on Debian: dpkg --add-architecture %s && apt-get update && apt-get install rustc-web cargo-web libstd-rust-web-dev libstd-rust-web-dev:%s' "$arch" "$arch"
}

# Has everything linked against the C library of BASE: its headers and libraries, in place of this machine's.
use_base() {
    [[ -n $BASE ]] || return 0
    local arch=${ARCHITECTURES[$TARGET]:-} root gnu archive
    [[ -n $arch ]] || fail "there is no Debian $BASE for $TARGET"
    need_commands debootstrap=debootstrap,debian-archive-keyring
    gnu=$(dpkg-architecture --host-arch "$arch" --query DEB_HOST_MULTIARCH)
    root=$(realpath --canonicalize-missing -- "$BUILT/bases/$BASE-$arch")
    [[ $root != *' '* ]] || fail "the compiler's options cannot hold a path with a blank: $root"
    if [[ ! -e $root/version ]]; then
        say "fetching the C library of $BASE for $arch (debootstrap)…"
        as_root rm -rf -- "$root" "$root.debs"
        mkdir -p "$root"
        mapfile -t archive < <(debian_mirror)
        as_root debootstrap --download-only --variant=minbase --arch="$arch" --include=libc6-dev,libgcc-s1 \
            "$BASE" "$root.debs" "${archive[@]}" >"$LOG_DIR/debootstrap.log" 2>&1 ||
            fail "there is no C library of $BASE: $(tail -n 3 "$LOG_DIR/debootstrap.log")"
        for archive in "$root.debs"/var/cache/apt/archives/{libgcc-s1,linux-libc-dev,libc6-dev,libc6}_*.deb; do
            dpkg-deb --extract "$archive" "$root" || fail "$archive could not be unpacked"
        done
        # Those of libraries lead to where they would be installed.
        find "$root" -type l -lname '/*' -exec sh -c 'ln -sfn "$1$(readlink "$2")" "$2"' sh "$root" {} ';'
        dpkg-deb --field "$archive" Version >"$root/version"
        as_root rm -rf -- "$root.debs"
    fi
    BASE_LIBC=$(sed 's/-.*//' "$root/version")
    # Without the last three, the compiler's own directories come first.
    export "CARGO_TARGET_$(upper "$TARGET")_RUSTFLAGS=-C link-arg=--sysroot=$root -C link-arg=-B$root/usr/lib/$gnu -C link-arg=-L$root/lib/$gnu -C link-arg=-L$root/usr/lib/$gnu"
    export "CFLAGS_${TARGET//-/_}=--sysroot=$root -isystem $root/usr/include/$gnu -isystem $root/usr/include"
    unset RUSTFLAGS
}

# check_base: that the programs ask for nothing that the C library of BASE does not have. Sets ASKED_LIBC to the
# oldest version that has it all.
check_base() {
    local built="$BUILT/${TARGET:+$TARGET/}$PROFILE"
    [[ -n $BASE ]] || return 0
    ASKED_LIBC=$(readelf --version-info --wide "$built"/{ingestor,simulator} | sed -n 's/.*GLIBC_\([0-9.]\+\).*/\1/p' |
        sort --version-sort | tail -n 1)
    dpkg --compare-versions "$ASKED_LIBC" le "$BASE_LIBC" ||
        fail "the programs ask for version $ASKED_LIBC of the C library, and $BASE has $BASE_LIBC"
}

build() {
    if [[ -n $BINARIES ]]; then
        local there="$BUILT/${TARGET:+$TARGET/}$PROFILE"
        [[ $BINARIES -ef $there ]] || install -D -t "$there" "$BINARIES"/{ingestor,simulator}
        return
    fi
    say "building the binaries (cargo, profile $PROFILE)…"
    run_child cargo "${COMPILER[@]}" cargo build --profile "$PROFILE" --locked --bins ${TARGET:+--target "$TARGET"} ||
        fail "cargo build failed"
}

stage() {
    local date
    rm -rf -- "$STAGE"
    mkdir -p "$STAGE"/{debian,man,completions}
    write_manual ingestor
    write_manual simulator
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

# write_manual PROGRAM: by itself, or by one that was built for this machine.
write_manual() {
    local program="$BUILT/${TARGET:+$TARGET/}$PROFILE/$1"
    if [[ -n $TARGET && $TARGET != "$(host_triple)" ]]; then
        say "building $1 for this machine too, to have it write the manual (cargo)…"
        run_child cargo cargo build --locked --bin "$1" || fail "cargo build failed"
        program="$BUILT/debug/$1"
    fi
    "$program" --write-manual "$STAGE" || fail "the manual of $1 could not be written"
}

package() {
    local arguments=(--no-build --profile "$PROFILE" --dbgsym --deb-version "$VERSION" --output "$OUTPUT/") deb
    mkdir -p "$OUTPUT"
    [[ -z $TARGET ]] || arguments+=(--target "$TARGET")
    run_child cargo-deb cargo-deb "${arguments[@]}" >"$WORK_DIR/package" || fail "cargo-deb failed"
    deb=$(grep '\.deb$' "$WORK_DIR/package" | tail -n 1)
    [[ -e $deb ]] || fail "cargo-deb has made no package"
    set_depends "$deb"
    if command -v lintian >/dev/null; then
        # As root it warns of itself. What is meant as it is stands in deploy/debian/lintian-overrides, with the reason.
        lintian --allow-root --fail-on error,warning "$deb" || fail "lintian finds fault with $deb"
    else
        say "lintian is not there, and has not looked at it"
    fi
    say "$deb"
}

# set_depends PACKAGE: what was there in an older C library as well counts as new where it has moved since, for the
# tools that look at the one that this machine has.
set_depends() {
    local tree="$WORK_DIR/tree"
    [[ -n $BASE ]] || return 0
    dpkg-deb --raw-extract "$1" "$tree"
    sed -i "/^Depends:/s/\\blibc6 (>= [^)]*)/libc6 (>= $ASKED_LIBC)/" "$tree/DEBIAN/control"
    grep -q "^Depends:.*libc6 (>= $ASKED_LIBC)" "$tree/DEBIAN/control" || fail "$1 depends on no C library"
    # What Ubuntu's compresses with, older machines do not read.
    dpkg-deb -Zxz --root-owner-group --build "$tree" "$1" >/dev/null
}

main() {
    read_arguments "$@"
    begin iot-package
    need_cargo
    need_commands cc=gcc,libc6-dev dpkg-shlibdeps=dpkg-dev strip=binutils
    [[ -z $BASE ]] || TARGET=${TARGET:-$(host_triple)}
    check_target
    use_base
    cargo_tool cargo-deb 3.8.0 || fail "cargo-deb could not be installed, see above"
    if [[ -z $VERSION ]]; then
        VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
        # dpkg sorts what is behind a tilde before what has none.
        VERSION=${VERSION/-/\~}-1
    fi
    build
    check_base
    stage
    package
}

main "$@"
