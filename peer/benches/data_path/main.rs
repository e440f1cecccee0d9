//! The data path without a tracker, a daemon or a command line. `cargo xtask bench` runs each side as a
//! process and compares the results.
//!
//! - `serve-raw`, `fetch-raw`: the bare socket. It has two connections, sendfile on one side, and on the
//!   other SHA-1 of each piece and a positioned write. No transfer that checks its pieces can be much faster.
//! - `serve`, `fetch`: the engine itself, over TLS or in plaintext.
//! - `stall`: a reader that stalls, to measure how a daemon copes with it.
//! - `torrent`: writes a .torrent of a file, for the BitTorrent clients that are measured for comparison.
//!
//! A fetch prints its result as one line of JSON on stdout. Without arguments the program prints its usage
//! and does nothing else, so that `cargo bench` passes over it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]
#![allow(missing_docs, reason = "a program, not a library")]

mod engine;
mod identity;
mod raw;
mod stall;
mod torrent;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "\
data_path serve-raw FILE                     prints `listening ADDRESS`
data_path fetch-raw ADDRESS BYTES TO
data_path serve plain|tls FILE DIR           prints `listening ADDRESS`; DIR takes what the other side needs
data_path fetch plain|tls FILE DIR ADDRESS TO
data_path stall SOCKET CA GROUP NAME ADDRESS TLS_NAME STREAMS   prints `listening nowhere`
data_path torrent FILE ANNOUNCE TO
";

fn main() -> ExitCode {
    peer::memory::keep_freed_buffers();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("data_path: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match *args {
        ["serve-raw", file] => raw::serve(Path::new(file)),
        ["fetch-raw", address, bytes, to] => raw::fetch(address, bytes.parse()?, Path::new(to)),
        ["serve", security, file, dir] => engine::serve(tls(security)?, Path::new(file), Path::new(dir)),
        ["fetch", security, file, dir, address, to] => {
            engine::fetch(tls(security)?, Path::new(file), Path::new(dir), address, Path::new(to))
        }
        ["stall", socket, ca, group, name, address, tls_name, streams] => {
            let (socket, ca) = (Path::new(socket), Path::new(ca));
            stall::run(&stall::Target { socket, ca, group, name, address, tls_name }, streams.parse()?)
        }
        ["torrent", file, announce, to] => torrent::write(Path::new(file), announce, Path::new(to)),
        [] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("not like this\n{USAGE}"),
    }
}

fn tls(security: &str) -> Result<bool> {
    match security {
        "plain" => Ok(false),
        "tls" => Ok(true),
        other => bail!("{other:?} is neither plain nor tls"),
    }
}

/// Prints the result of a fetch: its duration, and the processor time of this process since `before`.
fn report(took: Duration, before: Duration) -> Result<()> {
    let cpu = cpu_time()?.saturating_sub(before);
    println!("{{\"seconds\":{:.6},\"cpu_seconds\":{:.6}}}", took.as_secs_f64(), cpu.as_secs_f64());
    Ok(())
}

/// Processor time of this process in user and kernel mode, with a resolution of 10 ms.
fn cpu_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The process name, in parentheses, may contain anything. The fields are counted from its end.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).context("no such field");
    // USER_HZ is 100 on every Linux.
    Ok(Duration::from_millis((ticks()? + ticks()?) * 10))
}
