//! Reads the system's information about processes and about the machine.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

use testbed::cmd;

/// Processor time of a process in user and kernel mode, over all its threads.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The process name, in parentheses, may contain anything. The fields are counted from its end.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    let ticks = ticks.with_context(|| format!("/proc/{pid}/stat is not as expected"))?;
    // USER_HZ is 100 on every Linux.
    Ok(Duration::from_millis(ticks * 10))
}

/// The peak resident memory of a process, in MiB.
pub(crate) fn peak_memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    let kib: f64 = kib.context("no VmHWM")?.trim().parse()?;
    Ok(kib / 1024.0)
}

/// Touches and frees as much memory as a run is about to write. The first access to a page that the
/// hypervisor has taken back is several times slower, and would count against the contestant that runs first.
pub(crate) fn touch(bytes: u64) {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    std::hint::black_box(vec![1_u8; bytes]);
}

/// Returns the date, the machine and the commit for the head of a report.
pub(crate) fn machine() -> String {
    let said = |program: &str, args: &[&str]| {
        cmd::capture(cmd::command(program, args)).map_or("?".to_owned(), |out| out.trim().to_owned())
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let meminfo = read("/proc/meminfo");
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gib = memory.and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib >> 20);
    let dirty = if said("git", &["status", "--porcelain"]).is_empty() { "" } else { ", with changes" };
    format!(
        "{}; {} x {}, {gib} GiB, Linux {}, {} by default; commit {}{dirty}; load {}",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        std::thread::available_parallelism().map_or(0, usize::from),
        cpu.trim_start_matches(['\t', ' ', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        said("git", &["rev-parse", "--short=12", "HEAD"]),
        read("/proc/loadavg").split(' ').next().unwrap_or("?"),
    )
}
