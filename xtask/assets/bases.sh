#!/usr/bin/env bash
# Make the Docker base images out of Debian packages alone; no image registry is needed.
#
#   bases.sh RUNTIME_IMAGE BUILDER_IMAGE [NETTOOLS_IMAGE]
#
#   RUNTIME_IMAGE   what a service runs on: Debian's essential packages, with no apt,
#                   manual, locale, cache or library that none of them needs: our binaries
#                   link to libc and libgcc alone.
#   BUILDER_IMAGE   what a service is compiled on: a C compiler and linker, a copy of the
#                   Rust toolchain of the host under /usr/local, and every crate of
#                   Cargo.lock, so that cargo needs no network.
#   NETTOOLS_IMAGE  (optional) ip, tc and iptables, for sidecars that shape or cut a
#                   service's network.
#
# The suite and the mirrors are those that the host's own apt is set up with, so the host
# must be Debian, with lists that are up to date: run 'apt-get update' before this script.
# Debian's security updates are applied when the host's apt knows them.
#
# An image that was already made by this same recipe (this file, the same suite, packages,
# toolchain and crates) is left as it is; BASES_FORCE=1 makes it again, with today's
# package versions. TMPDIR is where it works: about 3 GB, on a file system without 'nodev'.
#
# The crates come with the image's one import: as a layer of their own, copied by `docker
# build`, their 20,000 small files take twenty times as long.
#
# Needs root, and: debootstrap, docker, apt, tar, and cargo and rustc for the builder.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
usage() { fail "usage: ${0##*/} RUNTIME_IMAGE BUILDER_IMAGE [NETTOOLS_IMAGE]"; }

[ $# -ge 2 ] && [ $# -le 3 ] || usage
runtime_image=$1 builder_image=$2 nettools_image=${3:-}

[ "$(id -u)" = 0 ] || fail "must run as root: debootstrap makes device nodes and uses chroot"
for tool in debootstrap docker apt-get tar sha256sum; do
  command -v "$tool" >/dev/null || fail "'$tool' is not installed"
done
docker version >/dev/null 2>&1 || fail "the Docker daemon does not answer"

builder_packages=(gcc libc6-dev make perl-base pkg-config)
nettools_packages=(iproute2 iptables)

# What a runtime image has no use for. Each is 'Priority: required' or apt itself, so
# debootstrap cannot leave it out; nothing that stays depends on it.
unwanted=(apt libapt-pkg6.0 gpgv debian-archive-keyring e2fsprogs logsave mount tzdata)

suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
[ -n "$suite" ] || fail "/etc/os-release names no release"

# The host's Rust toolchain. rustup's proxies would not work without rustup, so it is the
# toolchain's own directory that is copied.
sysroot=$(rustc --print sysroot) || fail "rustc does not run: it is needed for the builder image"
rust_version=$("$sysroot/bin/rustc" -vV)
# Which crates there are, not which of ours uses which.
project=$(cd "$(dirname "$0")/../.." && pwd)
crates=$(grep '^checksum = ' "$project/Cargo.lock")

# --- Which images are still to be made -------------------------------------------------

# recipe ROLE WORD...: a name for exactly this way of making the image.
recipe() { { cat -- "$0"; printf '%s\n' "$suite" "$@"; } | sha256sum | cut -d' ' -f1; }
# wanted IMAGE RECIPE: is there no image of that name made by that recipe?
wanted() {
  [ "${BASES_FORCE:-0}" = 0 ] || return 0
  [ "$(docker image inspect -f '{{index .Config.Labels "minitorrent.recipe"}}' "$1" 2>/dev/null)" != "$2" ]
}

runtime_recipe=$(recipe runtime)
builder_recipe=$(recipe builder "${builder_packages[@]}" "$rust_version" "$crates")
nettools_recipe=$(recipe nettools "${nettools_packages[@]}")
todo=()
if wanted "$runtime_image" "$runtime_recipe"; then todo+=(runtime); fi
if wanted "$builder_image" "$builder_recipe"; then todo+=(builder); fi
if [ -n "$nettools_image" ] && wanted "$nettools_image" "$nettools_recipe"; then todo+=(nettools); fi
[ ${#todo[@]} -gt 0 ] || { say "up to date: $*"; exit 0; }

# --- The common root: a minimal Debian --------------------------------------------------

# The mirror that the host's apt takes this suite's main component from. apt is asked
# rather than its files read, since it understands both kinds of sources file, and it alone
# knows which entries are in force. (One line per index: URI, suite as written, code name.)
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
  awk -v suite="$suite" '($2 == suite || $3 == suite) && $4 == "main" && !seen { print $1; seen = 1 }')
[ -n "$mirror" ] || fail "the host's apt has no source for '$suite main'; has 'apt-get update' been run?"

work=$(mktemp -d "${TMPDIR:-/tmp}/minitorrent-bases.XXXXXXXX")
cleanup() {
  # debootstrap unmounts these itself, unless it was interrupted. Nothing is deleted
  # through a mount: that would delete the host's files.
  local m
  for m in "$work"/*/proc "$work"/*/sys "$work"/*/dev/pts; do
    if mountpoint -q "$m" 2>/dev/null; then umount -l "$m" || return; fi
  done
  rm -rf --one-file-system -- "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$work"

say "making a minimal $suite"
# A root that is packed a moment later need not reach the disk after each package.
unsafe_io=etc/dpkg/dpkg.cfg.d/unsafe-io
install -D /dev/stdin "$work/common/$unsafe_io" <<<force-unsafe-io
debootstrap --variant=minbase --components=main "$suite" "$work/common" "$mirror" >"$work/debootstrap.log" 2>&1 ||
  { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }

# in_root ROOT COMMAND...: run a command inside a root, with nothing of the caller's
# environment, which holds paths and settings that mean nothing there.
in_root() {
  local root=$1; shift
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
    chroot "$root" "$@"
}

# host_apt ROOT COMMAND...: the host's apt (its mirrors, lists and settings) fetches what
# COMMAND would install into the root; the root's dpkg then installs it. So the root needs
# no sources, keys, proxy settings or network of its own.
host_apt() {
  local root=$1; shift
  rm -rf "$root/debs"; mkdir -p "$root/debs/partial"
  apt-get -q -y --no-install-recommends --download-only \
    -o Dir::State::status="$root/var/lib/dpkg/status" -o Dir::Cache::archives="$root/debs" \
    -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >"$work/apt.log" 2>&1 ||
    { tail -n 20 "$work/apt.log" >&2; fail "apt could not fetch: $*"; }
  set -- "$root"/debs/*.deb
  if [ -e "$1" ]; then
    in_root "$root" dpkg --install "${@#"$root"}" >"$work/dpkg.log" 2>&1 ||
      { tail -n 20 "$work/dpkg.log" >&2; fail "dpkg could not install into $root"; }
  fi
  rm -rf "$root/debs"
}

# Services must not be started by packages installed into a chroot.
printf '#!/bin/sh\nexit 101\n' >"$work/common/usr/sbin/policy-rc.d"
chmod 755 "$work/common/usr/sbin/policy-rc.d"
host_apt "$work/common" upgrade --with-new-pkgs

# --- From a root to an image -------------------------------------------------------------

# tidy ROOT: drop what only a person at a terminal, or a later apt, would use. Licences stay.
tidy() {
  local root=$1
  find "$root/usr/share/doc" -mindepth 1 ! -type d ! -name copyright -delete
  find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
  rm -rf "$root"/usr/share/{man,info,groff,lintian,linda,locale,bug} "$root/usr/share/i18n"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/cache/ldconfig/*
  rm -rf "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/var/backups/*
  rm -rf "$root"/tmp/* "$root"/var/tmp/* "$root"/run/*
  find "$root/var/log" -type f -delete
  rm -f "$root/$unsafe_io"
  # debootstrap copies the host's name and resolver; Docker supplies a container's own.
  rm -f "$root"/etc/{hostname,resolv.conf} "$root/usr/sbin/policy-rc.d"
  # The mirror is this host's affair. An image that is to use apt is given sources there.
  rm -f "$root/etc/apt/sources.list"
  if [ -e "$root/etc/machine-id" ]; then : >"$root/etc/machine-id"; fi
}

# pack ROOT IMAGE RECIPE CHANGE...: the image out of the root.
pack() {
  local root=$1 image=$2 recipe=$3 old change changes=(); shift 3
  for change in "LABEL minitorrent.recipe=$recipe" 'CMD ["/bin/bash"]' "$@" \
    'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'; do
    changes+=(--change "$change")
  done
  # The device nodes are left out: Docker mounts its own /dev.
  # GNU tar strips no set-id bits and keeps numeric owners; order and times are fixed so
  # that equal roots make equal tarballs.
  tar -C "$root" --numeric-owner --sort=name --exclude='./dev/*' \
    ${SOURCE_DATE_EPOCH:+"--mtime=@$SOURCE_DATE_EPOCH" --clamp-mtime} -cf "$work/image.tar" .
  old=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) || old=''
  docker import "${changes[@]}" "$work/image.tar" "$image" >/dev/null
  # The image that had the name before is dropped, unless it has another name or something
  # is built on it (Docker refuses then).
  if [ -n "$old" ] && [ -z "$(docker image inspect -f '{{join .RepoTags " "}}' "$old" 2>/dev/null)" ]; then
    docker image rm "$old" >/dev/null 2>&1 || true
  fi
  rm -f "$work/image.tar"
  say "$image: $(($(docker image inspect -f '{{.Size}}' "$image") / 1000000)) MB"
}

# drop_unused_libraries ROOT: remove each library package that no installed package depends
# on (dpkg refuses the others), until none is left: they came with what was removed.
drop_unused_libraries() {
  local root=$1 name removed=1
  while [ "$removed" = 1 ]; do
    removed=0
    for name in $(in_root "$root" dpkg-query -W -f '${Package}\n' 'lib*'); do
      if in_root "$root" dpkg --purge "$name" >/dev/null 2>&1 &&
        ! in_root "$root" dpkg-query -W "$name" >/dev/null 2>&1; then removed=1; fi
    done
  done
}

make_runtime() {
  local root=$work/runtime name installed=()
  cp -a "$work/common" "$root"
  for name in "${unwanted[@]}"; do
    if in_root "$root" dpkg-query -W "$name" >/dev/null 2>&1; then installed+=("$name"); fi
  done
  in_root "$root" dpkg --purge --force-remove-protected "${installed[@]}" >"$work/dpkg.log" 2>&1 ||
    { tail -n 20 "$work/dpkg.log" >&2; fail "could not remove what a runtime image does not need"; }
  drop_unused_libraries "$root"
  tidy "$root"
  pack "$root" "$runtime_image" "$runtime_recipe"
  rm -rf --one-file-system -- "$root"
}

make_builder() {
  local root=$work/builder
  cp -a "$work/common" "$root"
  host_apt "$root" install "${builder_packages[@]}"
  # Not the toolchain's HTML books, sources and bookkeeping: half of its size.
  tar -C "$sysroot" --exclude='./share' --exclude='./lib/rustlib/src' --exclude='./etc' \
    --exclude='./lib/rustlib/manifest-*' --owner=0 --group=0 -cf - . | tar -C "$root/usr/local" -xf -
  in_root "$root" ldconfig
  tidy "$root"
  mkdir -p "$root/usr/local/cargo"
  (cd "$project" && cargo vendor --locked --quiet --versioned-dirs "$root/usr/local/crates" >/dev/null)
  cat >"$root/usr/local/cargo/config.toml" <<'END'
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "/usr/local/crates"

[net]
offline = true
END
  pack "$root" "$builder_image" "$builder_recipe" \
    'ENV CARGO_HOME=/usr/local/cargo' 'ENV CARGO_TERM_COLOR=never' 'WORKDIR /src'
  rm -rf --one-file-system -- "$root"
}

make_nettools() {
  local root=$work/nettools
  cp -a "$work/common" "$root"
  host_apt "$root" install "${nettools_packages[@]}"
  tidy "$root"
  pack "$root" "$nettools_image" "$nettools_recipe"
  rm -rf --one-file-system -- "$root"
}

for role in "${todo[@]}"; do
  say "making the $role image"
  "make_$role"
done
