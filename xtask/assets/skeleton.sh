#!/bin/sh
# skeleton.sh FROM INTO: copies the manifests and writes minimal sources that build for each of our crates. The dependencies
# can then be built alone, and stay built while only our own code changes.
set -eu
from=$1
into=$2
cd "$from"
find . -name Cargo.toml -not -path './target/*' | while read -r manifest; do
    install -D -m 644 "$manifest" "$into/$manifest"
    crate=$(dirname "$manifest")
    [ "$crate" != . ] || continue
    mkdir -p "$into/$crate/src"
    # Only targets that exist are written, because the real sources are later copied over these files.
    [ ! -e "$crate/src/lib.rs" ] || : >"$into/$crate/src/lib.rs"
    [ -e "$crate/src/lib.rs" ] && [ ! -e "$crate/src/main.rs" ] || echo 'fn main() {}' >"$into/$crate/src/main.rs"
    [ ! -e "$crate/build.rs" ] || echo 'fn main() {}' >"$into/$crate/build.rs"
    # Benches that the manifests name must exist too.
    sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' "$manifest" | while read -r bench; do
        mkdir -p "$into/$crate/benches"
        echo 'fn main() {}' >"$into/$crate/benches/$bench.rs"
    done
done
cp Cargo.lock "$into/"
