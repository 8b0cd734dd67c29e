#!/usr/bin/env bash
# Names the images of the compose file by digest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

usage() {
    cat <<'TEXT'
Usage: scripts/pin-images.sh

Asks the registries what the images of deploy/docker-compose.yml, and those that ours are built from, are
today, and writes deploy/docker-compose.pinned.yml, which names exactly those bytes:

  docker compose -f deploy/docker-compose.yml -f deploy/docker-compose.pinned.yml up -d --build --wait

Run it after you have tried them, and again with each upgrade. A tag can be moved, a digest cannot. With
docker-compose.secure.yml the order of the files does not matter.

  --help   this text
TEXT
}

COMPOSE=deploy/docker-compose.yml
DOCKERFILE=deploy/docker/Dockerfile
PINNED=${PINNED:-deploy/docker-compose.pinned.yml}

# digest IMAGE: what the registry says that it is now.
digest() {
    local digest
    digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1") ||
        fail "the registry does not say what $1 is"
    [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || fail "no digest of $1: $digest"
    complain "  $1@$digest"
    printf '%s' "$digest"
}

# images: each service with its image, those that are built here aside.
images() {
    awk '/^[a-z]/ { inside = $1 == "services:" }
        inside && /^  [a-z-]+:$/ { service = substr($1, 1, length($1) - 1) }
        inside && $1 == "image:" && $2 !~ /\$/ { print service, $2 }' "$COMPOSE"
}

# base ARG: the tag in the Dockerfile.
base() { sed -n "s/^ARG $1=//p" "$DOCKERFILE"; }

write() {
    local service image rust digest
    rust=$(base RUST_TAG)
    rust+=@$(digest "rust:$rust")
    printf '# Written by scripts/pin-images.sh; run it again to take newer ones.\nservices:\n'
    for service in ingestor simulator; do
        printf '  %s:\n    build: { args: { RUST_TAG: "%s" } }\n' "$service" "$rust"
    done
    while read -r service image; do
        digest=$(digest "$image")
        printf '  %s:\n    image: "%s@%s"\n' "$service" "$image" "$digest"
    done < <(images)
}

main() {
    case ${1:-} in
        '') ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            complain "unknown argument: $1 (try --help)"
            exit 64
            ;;
    esac
    begin iot-pins
    need_commands docker=docker.io
    # All of it, or nothing.
    write >"$WORK_DIR/pinned.yml"
    cp "$WORK_DIR/pinned.yml" "$PINNED"
    say "the images are named in $PINNED"
}

main "$@"
