//! The parts that all measurements share: the programs, a directory in memory, files, and the number of
//! rounds.

use std::{
    cell::OnceCell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use testbed::{
    cmd,
    programs::{Server, make_file},
};

/// The file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

/// The shared parts of a measurement. Its directory is removed when it is dropped.
pub(crate) struct Lab {
    /// The directory of our binaries.
    pub(crate) bin: PathBuf,
    /// The program of the data path's benchmark, once it was needed.
    data_path: OnceCell<PathBuf>,
    /// Number of rounds of each measurement.
    pub(crate) rounds: usize,
    /// Whether this is a smoke run: one round with small files.
    pub(crate) quick: bool,
    /// The directory of an earlier build's binaries, to compare with.
    pub(crate) against: Option<PathBuf>,
    dir: PathBuf,
}

impl Lab {
    pub(crate) fn new(bin: PathBuf, quick: bool, against: Option<PathBuf>) -> Result<Self> {
        let dir = Path::new(MEMORY).join(format!("minitorrent-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("{} can't be made", dir.display()))?;
        Ok(Self { bin, data_path: OnceCell::new(), rounds: if quick { 1 } else { 5 }, quick, against, dir })
    }

    /// The program of the data path's benchmark. It is built when it is first needed.
    pub(crate) fn data_path(&self) -> Result<&Path> {
        if self.data_path.get().is_none() {
            let built = build_bench("peer", "data_path")?;
            return Ok(self.data_path.get_or_init(|| built));
        }
        self.data_path.get().map(PathBuf::as_path).context("it was built")
    }

    /// The directory in memory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns this number of bytes, or a quarter of it in a smoke run.
    pub(crate) fn bytes(&self, full: u64) -> u64 {
        if self.quick { full / 4 } else { full }
    }

    /// Returns a file of incompressible bytes. It is made once for each size.
    pub(crate) fn file(&self, bytes: u64) -> Result<PathBuf> {
        let dir = self.dir.join(format!("source-{bytes}"));
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("bench-{}.bin", bytes >> 20));
        make_file(&path, bytes, 7)?;
        Ok(path)
    }

    /// Removes a file that [`Lab::file`] made, to free its memory.
    pub(crate) fn forget(&self, file: &Path) -> Result<()> {
        let dir = file.parent().context("the file has no folder")?;
        Ok(fs::remove_dir_all(dir)?)
    }

    /// Runs a fetch of the data path's benchmark. Returns its duration and its processor time, both in
    /// seconds.
    pub(crate) fn fetch(&self, args: &[&str]) -> Result<(f64, f64)> {
        let mut command = Command::new(self.data_path()?);
        command.args(args);
        let out = cmd::capture(command)?;
        let json: Value = serde_json::from_str(out.trim()).with_context(|| format!("not JSON: {out:?}"))?;
        json["seconds"].as_f64().zip(json["cpu_seconds"].as_f64()).context("a number is missing")
    }

    /// Starts a server of the data path's benchmark.
    pub(crate) fn server(&self, args: &[&str]) -> Result<Server> {
        Server::start(Command::new(self.data_path()?).args(args))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Builds a benchmark and returns the path of its program.
pub(crate) fn build_bench(package: &str, name: &str) -> Result<PathBuf> {
    let args = ["build", "--locked", "--release", "-p", package, "--bench", name];
    println!("$ cargo {}", args.join(" "));
    let mut command = cmd::command(&cmd::cargo(), &args);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).stdin(Stdio::null());
    let output = command.output()?;
    if !output.status.success() {
        bail!("the benchmark {name} can't be built ({})", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = built.filter(|message| message["target"]["name"] == name);
    let path = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.with_context(|| format!("cargo does not say where the benchmark {name} is"))
}
