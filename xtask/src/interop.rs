//! Checks that another implementation of gRPC can talk to ours: grpcio, in Python, built from the .proto
//! files alone.

use std::path::Path;

use anyhow::{Result, bail};

use testbed::{Host, Hosts as _, cmd, peer, processes::Processes, programs};

use testbed::scenario::{self, GROUP, USERS, scene};

/// Whether Python has the packages that the script needs.
pub(crate) fn available() -> Result<bool> {
    if !cmd::installed("python3", &["--version"])? || !cmd::installed("openssl", &["version"])? {
        return Ok(false);
    }
    let import = cmd::output(cmd::command("python3", &["-c", "import grpc, grpc_tools"]), b"")?;
    let stderr = String::from_utf8_lossy(&import.stderr);
    if import.status.success() || stderr.contains("ModuleNotFoundError") {
        return Ok(import.status.success());
    }
    bail!("grpcio is installed here and does not work: {}", stderr.trim())
}

/// Runs the check with the binaries in `bin`.
pub(crate) fn run(bin: &Path) -> Result<()> {
    scene("alice shares a file in her group");
    let hosts = Processes::on_loopback(bin, USERS.len())?;
    scenario::accounts(&hosts)?;
    peer(&hosts, 1, &["create-group", GROUP])?;
    let file = cmd::root().join("target/demo/small.bin");
    programs::make_file(&file, 3 * scenario::PIECE + 1000, 3)?;
    testbed::put(&hosts, Host::Peer(1), &file, "small.bin")?;
    peer(&hosts, 1, &["upload", "small.bin", GROUP])?;

    scene("A client in Python gets an account, is let in, and fetches a piece");
    let (root, ca, url) = (cmd::root(), hosts.ca(), hosts.tracker_url());
    let mut script = hosts.command(Host::Tracker, &["python3"]);
    script.arg(root.join("xtask/assets/interop.py")).arg(root.join("proto")).arg("stubs").arg(ca);
    script.arg(url.trim_start_matches("https://")).args([
        USERS[0].name,
        USERS[0].password,
        GROUP,
        "small.bin",
    ]);
    cmd::run(script)
}
