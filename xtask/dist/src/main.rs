//! `cargo xtask dist`: makes what a release hands out, in `target/dist`. It makes a Debian package of each
//! program, a tarball with both, an SBOM of each, and the checksums. `--try` then installs, upgrades and removes
//! the packages on a Debian machine.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what these commands do")]
#![allow(clippy::disallowed_methods, reason = "nothing here is async: a thread may sleep between two polls")]

mod machine;
mod make;
mod programs;
mod tools;
mod trial;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        [] => make::all(),
        ["--try"] => make_and_try(),
        _ => {
            eprintln!("dist: {} is not known; `cargo xtask dist` takes --try or nothing", args.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make_and_try() -> Result<()> {
    make::all()?;
    if let Some(why) = machine::missing()? {
        println!("\nSKIPPED: {why}: the packages were made and NOT tried");
        return Ok(());
    }
    let upgrade = make::upgrade()?;
    trial::play(&make::output(), &upgrade)
}
