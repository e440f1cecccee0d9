//! The time to hash a file for upload, relative to `openssl sha1` of the same file.

use std::time::Instant;

use anyhow::Result;

use super::{
    lab::Lab,
    report::{Goal, Report},
};
use testbed::cmd;

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let what = "hashing for upload over `openssl sha1`";
    if !cmd::works("openssl", &["version"]) {
        report.skip(what, "openssl is not installed");
        return Ok(());
    }
    let file = lab.file(lab.bytes(1 << 30))?;
    let path = file.to_string_lossy();
    let peer = lab.bin.join("peer");
    let peer = peer.to_string_lossy();
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=lab.rounds {
        let time = |program: &str, args: &[&str]| -> Result<f64> {
            let start = Instant::now();
            cmd::capture(cmd::command(program, args))?;
            Ok(start.elapsed().as_secs_f64())
        };
        let one = time(&peer, &["hash", &path])?;
        let other = time("openssl", &["sha1", &path])?;
        println!("  round {round}: peer hash {one:.2} s, openssl sha1 {other:.2} s");
        if round > 0 {
            ratios.push(one / other);
            ours.push(one);
            theirs.push(other);
        }
    }
    report.figure(what, ratios, Goal::AtMost { must: 1.5, aim: 1.1 });
    report.note("`peer hash`, s", ours);
    report.note("`openssl sha1`, s", theirs);
    lab.forget(&file)
}
