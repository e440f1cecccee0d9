//! Folders: sharing and downloading many small files, what a folder costs a large file, updates, and memory.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use testbed::{cmd, peer_json, programs::make_file};

use super::{
    lab::Lab,
    ours::{GROUP, Ours},
    probe,
    report::{Goal, Report},
};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const PIECE: u64 = 524_288;

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    small_files(lab, report)?;
    one_large(lab, report)?;
    rewritten(lab, report)?;
    shuffled(lab, report)?;
    memory(lab, report)?;
    calls(lab, report)
}

/// Runs a line of the shell, and returns its seconds.
fn time(line: &str) -> Result<f64> {
    let start = Instant::now();
    cmd::capture(cmd::command("bash", &["-o", "pipefail", "-c", line]))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Makes a folder of small files, 100 in each directory.
fn make_folder(path: &Path, files: usize, length: usize) -> Result<()> {
    for number in 0..files {
        let directory = path.join(format!("{:04}", number / 100));
        if number.is_multiple_of(100) {
            fs::create_dir_all(&directory)?;
        }
        let seed = number.to_le_bytes();
        let content: Vec<u8> = (0..length).map(|at| seed[at % 8] ^ (at * 31 % 251) as u8).collect();
        fs::write(directory.join(format!("{number:06}")), content)?;
    }
    Ok(())
}

/// The bytes that peer 2 got from others for a download.
fn fetched(ours: &Ours, name: &str) -> Result<u64> {
    Ok(ours.shares(2, name)?.iter().map(|(_, bytes)| bytes).sum())
}

fn small_files(lab: &Lab, report: &mut Report) -> Result<()> {
    let files = if lab.quick { 1_000 } else { 10_000 };
    let what = format!("{files} files of 4 KiB");
    let (source, copy) = (lab.dir().join("small"), lab.dir().join("small-copy"));
    make_folder(&source, files, 4096)?;
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    let (mut share, mut arrive) = (Vec::new(), Vec::new());
    let (mut share_s, mut arrive_s) = (Vec::new(), Vec::new());
    for round in 0..=lab.rounds {
        let name = format!("small-{round}");
        let hashed = time(&format!("tar c -C {} . | openssl sha1", source.display()))?;
        let start = Instant::now();
        ours.upload(1, &source, &name)?;
        let shared = start.elapsed().as_secs_f64();
        ours.seeders(2, &name, 1)?;
        fs::create_dir(&copy)?;
        let line = format!("tar c -C {} . | tar x -C {}", source.display(), copy.display());
        let copied = time(&line)?;
        fs::remove_dir_all(&copy)?;
        let arrived = ours.race(&[2], &name)?.as_secs_f64();
        ours.check_and_forget_folder(2, &name, &source)?;
        ours.unpublish(&name)?;
        println!(
            "  round {round}: shared in {shared:.2} s, tar and openssl {hashed:.2} s; arrived in {arrived:.2} s, tar \
             {copied:.2} s"
        );
        if round > 0 {
            share.push(shared / hashed);
            arrive.push(arrived / copied);
            share_s.push(shared);
            arrive_s.push(arrived);
        }
    }
    fs::remove_dir_all(&source)?;
    report.figure(
        format!("share {what}, over `tar c | openssl sha1`"),
        share,
        Goal::AtMost { must: 2.0, aim: 1.0 },
    );
    report.note(format!("share {what}, s"), share_s);
    let what = format!("download {what}, call to exit");
    report.figure(format!("{what}, over `tar c | tar x`"), arrive, Goal::AtMost { must: 3.0, aim: 1.5 });
    report.note(format!("{what}, s"), arrive_s);
    Ok(())
}

fn one_large(lab: &Lab, report: &mut Report) -> Result<()> {
    let bytes = lab.bytes(GIB);
    let file = lab.file(bytes)?;
    let folder = lab.dir().join("one");
    fs::create_dir(&folder)?;
    fs::hard_link(&file, folder.join("large.bin"))?;
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    let mut ratios = Vec::new();
    for round in 0..=lab.rounds {
        let (alone, within) = (format!("alone-{round}"), format!("within-{round}"));
        ours.upload(1, &file, &alone)?;
        ours.upload(1, &folder, &within)?;
        ours.seeders(2, &within, 1)?;
        let mut times = [0.0, 0.0];
        // The order changes from round to round.
        for turn in [round % 2, 1 - round % 2] {
            let name = if turn == 0 { &alone } else { &within };
            probe::touch(bytes);
            times[turn] = ours.race(&[2], name)?.as_secs_f64();
            if turn == 0 {
                ours.check_and_forget(&[2], name, &file)?;
            } else {
                ours.check_and_forget_folder(2, name, &folder)?;
            }
            ours.run(2, &["clear-downloads"])?;
        }
        ours.unpublish(&alone)?;
        ours.unpublish(&within)?;
        println!("  round {round}: alone {:.2} s, in a folder {:.2} s", times[0], times[1]);
        if round > 0 {
            ratios.push(times[1] / times[0]);
        }
    }
    fs::remove_dir_all(&folder)?;
    lab.forget(&file)?;
    let what = format!("a file of {} MiB in a folder, over the file alone", bytes >> 20);
    report.figure(what, ratios, Goal::AtMost { must: 1.05, aim: 1.0 });
    Ok(())
}

/// Ten ranges of 1 MiB are rewritten in place.
fn rewritten(lab: &Lab, report: &mut Report) -> Result<()> {
    let bytes = lab.bytes(GIB);
    let path = lab.dir().join("rewritten.bin");
    make_file(&path, bytes, 11)?;
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    ours.upload(1, &path, "v")?;
    ours.seeders(2, "v", 1)?;
    ours.race(&[2], "v")?;
    let (mut shares, mut seconds) = (Vec::new(), Vec::new());
    for round in 1..=lab.rounds as u64 {
        let file = fs::File::options().write(true).open(&path)?;
        for range in 0..10 {
            // The ranges do not begin where pieces do.
            let at = (bytes / 10) * range + round * 777_777;
            file.write_all_at(&vec![(round * 16 + range) as u8; MIB as usize], at)?;
        }
        drop(file);
        ours.run(1, &["upload", &path.to_string_lossy(), GROUP, "--name", "v", "--replace"])?;
        ours.seeders(2, "v", 1)?;
        let start = Instant::now();
        ours.run(2, &["update", GROUP, "v"])?;
        seconds.push(start.elapsed().as_secs_f64());
        let share = fetched(&ours, "v")? as f64 * 100.0 / bytes as f64;
        println!("  round {round}: {share:.2} % fetched in {:.2} s", seconds[seconds.len() - 1]);
        shares.push(share);
    }
    ours.check_and_forget(&[2], "v", &path)?;
    fs::remove_file(&path)?;
    let what = format!("update of {} MiB with 10 x 1 MiB rewritten", bytes >> 20);
    report.figure(format!("{what}: bytes fetched, %"), shares, Goal::AtMost { must: 2.0, aim: 1.5 });
    report.note(format!("{what}, s"), seconds);
    Ok(())
}

/// One file of a folder is added, one removed, one renamed.
fn shuffled(lab: &Lab, report: &mut Report) -> Result<()> {
    let source = lab.dir().join("shuffled");
    make_folder(&source, 1_000, 4096)?;
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    ours.upload(1, &source, "v")?;
    ours.seeders(2, "v", 1)?;
    ours.race(&[2], "v")?;
    let mut ratios = Vec::new();
    for round in 0..lab.rounds {
        let file = |number: usize| source.join(format!("{:04}/{number:06}", number / 100));
        let added: Vec<u8> = (0..20_000).map(|at| (at * (round + 3) % 253) as u8).collect();
        fs::write(source.join(format!("{:04}/added-{round}", 2 * round)), &added)?;
        fs::remove_file(file(500 + round))?;
        fs::rename(file(300 + round), source.join(format!("0009/renamed-{round}")))?;
        ours.run(1, &["upload", &source.to_string_lossy(), GROUP, "--name", "v", "--replace"])?;
        ours.seeders(2, "v", 1)?;
        let listed = peer_json(&ours.hosts, 1, &["list-files", GROUP, "v"])?;
        let entries = listed["entries"].as_array().context("no entries")?;
        let contents: u64 = entries.iter().filter_map(|entry| entry["size"].as_u64()).sum();
        let index = listed["size"].as_u64().context("no size")? - contents;
        ours.run(2, &["update", GROUP, "v"])?;
        let (fetched, most) = (fetched(&ours, "v")?, added.len() as u64 + index + 2 * PIECE);
        println!("  round {round}: {fetched} bytes fetched, {most} allowed");
        ratios.push(fetched as f64 / most as f64);
    }
    ours.check_and_forget_folder(2, "v", &source)?;
    fs::remove_dir_all(&source)?;
    let what = "update of 1,000 files, one added, removed and renamed: bytes fetched over the new file, the index and 2 pieces";
    report.figure(what, ratios, Goal::AtMost { must: 1.0, aim: 1.0 });
    Ok(())
}

fn memory(lab: &Lab, report: &mut Report) -> Result<()> {
    let files = if lab.quick { 20_000 } else { 200_000 };
    let source = lab.dir().join("many");
    make_folder(&source, files, 200)?;
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    ours.upload(1, &source, "many")?;
    ours.seeders(2, "many", 1)?;
    let took = ours.race(&[2], "many")?;
    println!("  {files} files arrived in {:.1} s", took.as_secs_f64());
    for (n, who) in [(1, "seeder"), (2, "leecher")] {
        let goal = Goal::AtMost { must: 192.0, aim: 96.0 };
        report.figure(
            format!("{files} files: peak memory of the {who}'s daemon, MiB"),
            vec![ours.peak_memory(n)?],
            goal,
        );
    }
    ours.check_and_forget_folder(2, "many", &source)?;
    Ok(fs::remove_dir_all(&source)?)
}

/// Calls of `peer download` for small files, one after another.
fn calls(lab: &Lab, report: &mut Report) -> Result<()> {
    let count = if lab.quick { 20 } else { 100 };
    let source = lab.dir().join("calls");
    fs::create_dir(&source)?;
    let paths: Vec<PathBuf> = (0..count).map(|number| source.join(format!("f{number}"))).collect();
    for (path, seed) in paths.iter().zip(0..) {
        make_file(path, 10_000, seed)?;
    }
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    let texts: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let call: Vec<&str> =
        ["upload"].into_iter().chain(texts.iter().map(String::as_str)).chain([GROUP]).collect();
    ours.run(1, &call)?;
    ours.seeders(2, &format!("f{}", count - 1), 1)?;
    let mut each = Vec::new();
    for round in 0..=lab.rounds {
        let start = Instant::now();
        for number in 0..count {
            ours.race(&[2], &format!("f{number}"))?;
        }
        let ms = start.elapsed().as_secs_f64() * 1e3 / count as f64;
        println!("  round {round}: {ms:.1} ms each");
        if round > 0 {
            each.push(ms);
        }
        for (number, path) in paths.iter().enumerate() {
            ours.check_and_forget(&[2], &format!("f{number}"), path)?;
        }
    }
    let what = format!("{count} calls of `peer download` for small files, one after another, ms each");
    report.figure(what, each, Goal::AtMost { must: 50.0, aim: 20.0 });
    Ok(fs::remove_dir_all(&source)?)
}
