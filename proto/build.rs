//! Compiles the .proto files with protox, which is pure Rust. No protoc has to be installed, and no generated
//! code is in the tree.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = ["types", "auth", "group", "file", "folder", "swarm", "peer", "control"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=minitorrent");
    let paths = FILES.map(|name| format!("minitorrent/v1/{name}.proto"));
    let descriptors = protox::compile(paths, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".minitorrent.v1.FindPeersResponse", "crate::pb::FindPeersResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
