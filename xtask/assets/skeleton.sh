#!/bin/sh
# skeleton.sh FROM INTO: what decides about the dependencies, and for each crate of ours the emptiest sources that build. So
# the dependencies can be built alone, and stay built while only our own code changes.
set -eu
cd "$1"
for file in Cargo.toml Cargo.lock */Cargo.toml; do install -D -m 644 "$file" "$2/$file"; done
cd "$2"
for crate in */; do
    mkdir -p "$crate/src"
    echo 'fn main() {}' >"$crate/src/main.rs"
    : >"$crate/src/lib.rs"
    # Benches that the manifests name must be there too.
    sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' "$crate/Cargo.toml" | while read -r bench; do
        mkdir -p "$crate/benches"
        echo 'fn main() {}' >"$crate/benches/$bench.rs"
    done
done
rm proto/src/main.rs
echo 'fn main() {}' >proto/build.rs
