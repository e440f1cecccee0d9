//! `cargo xtask whole-system`: runs seeds of the whole system in virtual time. The code is
//! `peer/tests/whole_system/`.

use anyhow::{Result, bail};
use testbed::cmd;

/// How many seeds run in CI.
const COUNT: u64 = 300;

/// Runs the seeds that the arguments name. A single seed prints its trace.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut seed, mut count) = (None, None);
    let mut rest = args;
    while let [name, value, more @ ..] = rest {
        let value: u64 = value.parse()?;
        match *name {
            "--seed" => seed = Some(value),
            "--count" => count = Some(value),
            _ => bail!("{name} is not a flag of whole-system; --seed N and --count K are"),
        }
        rest = more;
    }
    if let [word, ..] = rest {
        bail!("{word} needs a number");
    }
    let test = |name| {
        // With the features of the whole workspace, so that no dependency is built once more after the other tests.
        let args = [
            "test",
            "--quiet",
            "--locked",
            "--workspace",
            "--test",
            "whole_system",
            "--",
            "--exact",
            "--nocapture",
            name,
        ];
        cmd::command(&cmd::cargo(), &args)
    };
    if let (Some(seed), None) = (seed, count) {
        let mut command = test("one_seed");
        command.env("WHOLE_SYSTEM_SEED", seed.to_string()).env("WHOLE_SYSTEM_TRACE", "1");
        return cmd::run(command);
    }
    let (first, count) = (seed.unwrap_or(1), count.unwrap_or(COUNT));
    let mut command = test("seeds");
    command.env("WHOLE_SYSTEM_SEEDS", format!("{first}..{}", (first + count).saturating_sub(1)));
    cmd::run(command)
}
