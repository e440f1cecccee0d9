//! Another implementation of gRPC talks to ours: grpcio, in Python, from the .proto files alone.

use std::path::Path;

use anyhow::Result;

use crate::{
    cmd,
    stage::{self, Host, Stage as _, peer, processes::Processes},
    story::{self, GROUP, USERS, scene},
};

/// Whether Python has what the script needs.
pub(crate) fn available() -> bool {
    cmd::works("python3", &["-c", "import grpc, grpc_tools"]) && cmd::works("openssl", &["version"])
}

/// Runs it with the binaries in `bin`.
pub(crate) fn run(bin: &Path) -> Result<()> {
    scene("alice shares a file in her group");
    let stage = Processes::on_loopback(bin, USERS.len())?;
    story::accounts(&stage)?;
    peer(&stage, 1, &["create-group", GROUP])?;
    let file = cmd::root().join("target/demo/small.bin");
    story::make_file(&file, 3 * story::PIECE + 1000, 3)?;
    stage::put(&stage, Host::Peer(1), &file, "small.bin")?;
    peer(&stage, 1, &["upload", "small.bin", GROUP])?;

    scene("A client in Python gets an account, is let in, and fetches a piece");
    let (root, ca, url) = (cmd::root(), stage.ca(), stage.tracker_url());
    let mut script = stage.command(Host::Tracker, &["python3"]);
    script.arg(root.join("xtask/assets/interop.py")).arg(root.join("proto")).arg("stubs").arg(ca);
    script.arg(url.trim_start_matches("https://")).args([
        USERS[0].name,
        USERS[0].password,
        GROUP,
        "small.bin",
    ]);
    cmd::run(script)
}
