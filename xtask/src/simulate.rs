//! A swarm of up to ten thousand peers in virtual time: the product's own machines, decided here, in minutes.

use std::process::Command;

use anyhow::Result;

use crate::{bench::build_bench, cmd};

/// Builds the simulator and passes the arguments on; `--help` lists them.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut command = Command::new(build_bench("peer", "swarm")?);
    command.args(args);
    cmd::run(command)
}
