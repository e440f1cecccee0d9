//! The project's own commands. `cargo xtask` lists them.
//!
//! The crate has few dependencies, so that it builds in seconds. All heavy work is done by programs that it
//! runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what these commands do")]
#![allow(clippy::disallowed_methods, reason = "nothing here is async: a thread may sleep between two polls")]

mod ci;
mod demo;
mod e2e;
mod floors;
mod fuzz;
mod grpcurl;
mod interop;
mod readme;
mod source;
mod tidy;
mod whole_system;

use std::process::ExitCode;

use testbed::{cmd, images};

const HELP: &str = "\
The project's own commands.

    cargo xtask demo [FILE] [--keep]   a tracker and three peers move FILE (or one made for it) between them; --keep leaves
                                       them running, with lines to try by hand
    cargo xtask ci [SECTION]...        everything a change must pass: format, lints, house rules, tests, docs, dependencies
    cargo xtask tidy                   the house rules alone: pure folders, layers, file sizes, the code map
    cargo xtask e2e [--processes]      the scenario on several hosts, with partitions and crashes: docker-compose.yml where an
                                       engine answers, else network namespaces
    cargo xtask machines DIR           the blocks of the pages for several machines, with the binaries in DIR, over IPv4,
                                       IPv6, both, and a second interface
    cargo xtask classroom DIR          30 peers in namespaces join by one link and get a file, with the binaries in DIR
    cargo xtask fuzz [--seconds N] [TARGET]...
                                       parsers, servers and access rules against arbitrary input, with cargo-fuzz
    cargo xtask bench [--quick] [--against=DIR] [PART]...
                                       what engine and tracker can do, beside other programs where they are installed:
                                       pair, fan-in, fan-out, crowd, class, wan, hash, tracker, earlier (with an earlier build in
                                       DIR); nothing else may run meanwhile.
                                       A run of all parts writes its table into docs/benchmarks.md
    cargo xtask simulate [--scaling | --compare] [FLAG]...
                                       a swarm in virtual time, of the product's own machines: one scenario, growing swarms,
                                       or policies compared; --help lists the flags
    cargo xtask whole-system [--seed N] [--count K]
                                       the code of tracker and peers in one process and in virtual time, with random steps
                                       and faults; K seeds from N on, 300 from 1 if neither is given. One seed shows its
                                       trace
    cargo xtask dist [--try]           what a release hands out, in target/dist: Debian packages, a tarball, checksums, SBOMs;
                                       --try installs, upgrades and removes the packages on a Debian machine in a container
    cargo xtask images                 the container images, where need be without any registry
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.split_first() {
        Some((&"ci", rest)) => ci::run(rest),
        Some((&"tidy", [])) => tidy::run(),
        Some((&"bench", rest)) => package("bench", &["--release"], rest),
        Some((&"demo", rest)) => demo::run(rest),
        Some((&"machines", [bin])) => readme::on_machines(std::path::Path::new(bin)).map(|why| {
            println!("{}", why.map_or_else(String::new, |why| format!("SKIPPED: {why}")));
        }),
        Some((&"classroom", [bin])) => e2e::classroom(std::path::Path::new(bin)),
        Some((&"fuzz", rest)) => fuzz::run(rest),
        Some((&"e2e", rest)) => e2e::run(rest).map(drop),
        Some((&"simulate", rest)) => package("simulation", &["--release"], rest),
        Some((&"dist", rest)) => package("dist", &[], rest),
        Some((&"whole-system", rest)) => whole_system::run(rest),
        Some((&"images", [])) => images::bases().and_then(|bases| images::build(&bases)),
        None | Some((&("help" | "--help" | "-h"), _)) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some((verb, _)) => {
            eprintln!("xtask: `{verb}` with these arguments is not a command here\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the program of a package with these flags and runs it with these arguments.
fn package(name: &str, flags: &[&str], args: &[&str]) -> anyhow::Result<()> {
    let run = ["run", "--quiet", "--locked", "-p", name];
    cmd::run(cmd::command(&cmd::cargo(), &[&run, flags, &["--"], args].concat()))
}
