//! The project's own commands. `cargo xtask` lists them.
//!
//! Few dependencies, so that it builds in seconds: everything heavy is a program that it runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what these commands do")]
#![allow(clippy::disallowed_methods, reason = "nothing here is async: a thread may sleep between two looks")]

mod ci;
mod cmd;
mod floors;
mod source;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
The project's own commands.

    cargo xtask ci       everything a change must pass: format, lints, house rules, tests, docs, dependencies
    cargo xtask tidy     the house rules alone: pure folders, layers, file sizes, the README's map
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.split_first() {
        Some((&"ci", rest)) => ci::run(rest),
        Some((&"tidy", [])) => tidy::run(),
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
