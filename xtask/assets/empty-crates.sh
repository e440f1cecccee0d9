#!/bin/sh
# Gives each crate of the workspace the emptiest sources that build, so that its dependencies can be built alone.
set -eu
for crate in proto tracker-svc peer xtask; do
    mkdir -p "$crate/src"
    echo 'fn main() {}' >"$crate/src/main.rs"
done
rm proto/src/main.rs
for crate in proto tracker-svc peer; do : >"$crate/src/lib.rs"; done
echo 'fn main() {}' >proto/build.rs
# Benches that the manifests name must be there too.
for crate in peer tracker-svc; do
    sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' "$crate/Cargo.toml" | while read -r bench; do
        mkdir -p "$crate/benches"
        echo 'fn main() {}' >"$crate/benches/$bench.rs"
    done
done
