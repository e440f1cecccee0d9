#!/usr/bin/env bash
# Makes the Docker base images out of Debian packages with mmdebstrap; no image registry is needed.
#
#   bases.sh KIND=IMAGE...
#
# `runtime` is a minimal Debian. `builder` adds a C compiler, the Rust toolchain of this machine, and every crate of Cargo.lock,
# so that cargo needs no network. `shaper` adds `tc`, which shapes a network. `stores` adds PostgreSQL and Redis. `machine` is
# a Debian that boots systemd, to install packages on.
#
# The suite and the mirrors are those of this machine's own apt, so it must be a Debian with up-to-date lists (`apt-get update`).
# An image that this recipe made (this file, suite, packages, toolchain, crates) stays as it is. BASES_FORCE=1 makes it again,
# with today's package versions. TMPDIR needs about 3 GB.
set -euo pipefail
export LC_ALL=C

say() { printf 'bases.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
[ $# -gt 0 ] || fail "usage: bases.sh KIND=IMAGE..."

suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian')
[ -n "$suite" ] && [ -n "$sources" ] || fail "this machine's apt has no Debian sources; has 'apt-get update' been run?"
sysroot=$(rustc --print sysroot)
toolchain=$("$sysroot/bin/rustc" -vV)
project=$(cd "$(dirname "$0")/../.." && pwd)
crates=$(grep '^checksum = ' "$project/Cargo.lock")

work=$(mktemp -d "${TMPDIR:-/tmp}/minitorrent-bases.XXXXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The rustup proxies would not work without rustup, so the toolchain's own directory is copied, without its manuals.
builder_files() {
    tar -C "$sysroot" --exclude=./share --exclude=./etc --exclude='./lib/rustlib/src' --owner=0 --group=0 -cf "$work/rust.tar" .
    mkdir "$work/local" "$work/local/cargo"
    cat >"$work/local/cargo/config.toml" <<'CONFIG'
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "/usr/local/crates"
[net]
offline = true
CONFIG
    (cd "$project" && cargo vendor --locked --quiet --versioned-dirs "$work/local/crates" >/dev/null)
    tar -C "$work/local" --owner=0 --group=0 -cf "$work/crates.tar" .
    rm -rf "$work/local"
}

# image NAME PACKAGES RECIPE [PREPARE OPTION…]: makes the image. The function PREPARE first makes what mmdebstrap's OPTIONs copy.
image() {
    local name=$1 packages=$2 recipe prepare=${4:-true} options=("${@:5}")
    recipe=$({ cat -- "$project/xtask/assets/bases.sh"; printf '%s\n' "$suite" "$sources" "$packages" "$3"; } | sha256sum | cut -d' ' -f1)
    if [ -z "${BASES_FORCE:-}" ] &&
        [ "$(docker image inspect -f '{{index .Config.Labels "minitorrent.recipe"}}' "$name" 2>/dev/null)" = "$recipe" ]; then
        say "$name is up to date"
        return
    fi
    say "making $name from $suite"
    "$prepare"
    # A file between the two programs: the import of a root that was cut short would succeed.
    mmdebstrap --quiet --variant=minbase ${packages:+--include="$packages"} \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        "${options[@]}" "$suite" "$work/root.tar" - <<<"$sources"
    docker import --change "LABEL minitorrent.recipe=$recipe" --change 'CMD ["/bin/bash"]' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV CARGO_HOME=/usr/local/cargo CARGO_TERM_COLOR=never' "$work/root.tar" "$name" >/dev/null
    rm -f "$work"/*.tar
    # The image that had the name before, unless something is built on it.
    docker image prune --force --filter label=minitorrent.recipe >/dev/null
}

for wanted in "$@"; do
    name=${wanted#*=}
    case ${wanted%%=*} in
    runtime) image "$name" '' '' ;;
    builder)
        image "$name" gcc,libc6-dev "$toolchain $crates" builder_files \
            --customize-hook="tar-in '$work/rust.tar' /usr/local" --customize-hook="tar-in '$work/crates.tar' /usr/local"
        ;;
    shaper) image "$name" iproute2 '' ;;
    # The package of PostgreSQL would make a database.
    stores)
        image "$name" postgresql,redis-server '' true --essential-hook='mkdir -p "$1/etc/postgresql-common"' \
            --essential-hook='echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"'
        ;;
    machine) image "$name" systemd-sysv '' ;;
    *) fail "$wanted is not KIND=IMAGE with a kind that the head of this file names" ;;
    esac
done
