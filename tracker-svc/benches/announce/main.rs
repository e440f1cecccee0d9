//! Costs of a tracker with many peers: processor time per announce and per call, memory per peer. `cargo
//! xtask bench tracker` runs it.
//!
//! - `run PEERS`: a whole tracker in this process, with PEERS peers in its swarms and its database, over TLS.
//!   Most peers are inserted directly. A thousand more announce and call from another process, each with its
//!   own session and connection. So the processor time of this process is the tracker's.
//! - `memory seeders|leechers PEERS`: the memory of this many peers, measured as the growth of a process that
//!   has little else.
//! - `clients ADDRESS CA`: the thousand clients. Runs one phase for each line on stdin.
//! - `cluster PEERS`: three trackers as processes, on a PostgreSQL and a Redis server of this machine. Each peer has an
//!   announce stream; `load` is the process that they are in. `cargo xtask bench cluster` runs it.
//!
//! The result is one line of JSON on stdout. Without arguments the program prints its usage and does nothing,
//! so that `cargo bench` skips it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]
#![allow(missing_docs, reason = "a program, not a library")]

mod clients;
mod cluster;
mod load;
mod memory;
mod tracker;
mod world;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};

const USAGE: &str = "\
announce run PEERS
announce memory seeders|leechers PEERS
announce clients ADDRESS CA
announce cluster PEERS
announce load PEERS CA ADDRESS...
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("announce: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match *args {
        ["run", peers] => tracker::run(peers.parse()?),
        ["memory", "seeders", peers] => memory::run(false, peers.parse()?),
        ["memory", "leechers", peers] => memory::run(true, peers.parse()?),
        ["clients", address, ca] => clients::run(address.parse()?, Path::new(ca)),
        ["cluster", peers] => cluster::run(peers.parse()?),
        ["load", peers, ca, ref trackers @ ..] => load::run(peers.parse()?, Path::new(ca), trackers),
        [] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("not like this\n{USAGE}"),
    }
}
