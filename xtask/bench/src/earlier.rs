//! This build and an earlier one, in turn: `cargo xtask bench --against=DIR earlier`, where DIR contains the
//! earlier `peer` and `tracker-svc`. It shows whether a change made transfers slower.

use std::path::Path;

use anyhow::Result;

use super::{
    lab::Lab,
    ours::Ours,
    probe,
    report::{Goal, Report},
};

/// What a change may cost, as a ratio. The noise of a shared machine is about as large.
const NO_SLOWER: Goal = Goal::AtMost { must: 1.05, aim: 1.0 };

/// One transfer: its duration, and the processor time of all daemons, both in seconds.
struct Cost {
    seconds: f64,
    cpu: f64,
}

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let Some(earlier) = &lab.against else {
        report.skip("this build over an earlier one", "no --against=DIR was given");
        return Ok(());
    };
    compare(lab, report, earlier, 1, lab.bytes(1 << 30))?;
    compare(lab, report, earlier, 4, lab.bytes(512 << 20))
}

/// Compares the two builds in transfers from one seeder to `leechers` leechers that start together.
fn compare(lab: &Lab, report: &mut Report, earlier: &Path, leechers: usize, bytes: u64) -> Result<()> {
    let what = format!("1 to {leechers}, {} MiB, this build over the earlier one", bytes >> 20);
    let file = lab.file(bytes)?;
    let this_build = Ours::on_loopback(&lab.dir().join("this-build"), &lab.bin, leechers + 1)?;
    let earlier = Ours::on_loopback(&lab.dir().join("earlier-build"), earlier, leechers + 1)?;
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    // Round 0 is a warm-up. The order changes from round to round, so that neither build is always second.
    for round in 0..=lab.rounds {
        let name = format!("earlier-{round}.bin");
        let transfer = |build: &Ours| transfer(build, leechers, &file, &name, bytes);
        let (new, old) = if round % 2 == 0 {
            let new = transfer(&this_build)?;
            (new, transfer(&earlier)?)
        } else {
            let old = transfer(&earlier)?;
            (transfer(&this_build)?, old)
        };
        println!(
            "  round {round}: {:.2} s, CPU {:.2} s; earlier {:.2} s, {:.2} s",
            new.seconds, new.cpu, old.seconds, old.cpu
        );
        if round > 0 {
            times.push(new.seconds / old.seconds);
            cpu.push(new.cpu / old.cpu);
        }
    }
    report.figure(format!("{what}: time"), times, NO_SLOWER);
    report.figure(format!("{what}: processor time of the daemons"), cpu, NO_SLOWER);
    lab.forget(&file)
}

/// Peer 1 shares the file, and the other peers download it at once.
fn transfer(build: &Ours, leechers: usize, file: &Path, name: &str, bytes: u64) -> Result<Cost> {
    let all: Vec<usize> = (1..=leechers + 1).collect();
    let leeching = &all[1..];
    build.upload(1, file, name)?;
    build.seeders(2, name, 1)?;
    probe::touch(bytes * leechers as u64);
    let before = build.cpu_time(&all)?;
    let seconds = build.race(leeching, name)?.as_secs_f64();
    let cpu = build.cpu_time(&all)?.saturating_sub(before).as_secs_f64();
    build.check_and_forget(leeching, name, file)?;
    build.unpublish(name)?;
    Ok(Cost { seconds, cpu })
}
