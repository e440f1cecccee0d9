//! The project's own commands. `cargo xtask` lists them.
//!
//! Few dependencies, so that it builds in seconds: everything heavy is a program that it runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what these commands do")]
#![allow(clippy::disallowed_methods, reason = "nothing here is async: a thread may sleep between two looks")]

mod bench;
mod ci;
mod cmd;
mod demo;
mod e2e;
mod floors;
mod images;
mod interop;
mod poke;
mod readme;
mod simulate;
mod source;
mod stage;
mod story;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
The project's own commands.

    cargo xtask demo [FILE] [--keep]   a tracker and three peers move FILE (or one made for it) between them; --keep leaves
                                       them running, with lines to try by hand
    cargo xtask ci [SECTION]...        everything a change must pass: format, lints, house rules, tests, docs, dependencies
    cargo xtask tidy                   the house rules alone: pure folders, layers, file sizes, the README's map
    cargo xtask e2e [--processes]      the story on several hosts, with partitions and crashes: docker-compose.yml where an
                                       engine answers, else network namespaces
    cargo xtask bench [--quick] [PART]...
                                       what engine and tracker can do, beside other programs where they are installed:
                                       pair, fan-in, fan-out, crowd, wan, hash, tracker; nothing else may run meanwhile
    cargo xtask simulate [--scaling | --compare] [FLAG]...
                                       a swarm in virtual time, of the product's own machines: one scenario, growing swarms,
                                       or policies compared; --help lists the flags
    cargo xtask images                 the container images, where need be without any registry
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.split_first() {
        Some((&"ci", rest)) => ci::run(rest),
        Some((&"tidy", [])) => tidy::run(),
        Some((&"bench", rest)) => bench::run(rest),
        Some((&"demo", rest)) => demo::run(rest),
        Some((&"e2e", rest)) => e2e::run(rest).map(drop),
        Some((&"simulate", rest)) => simulate::run(rest),
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
