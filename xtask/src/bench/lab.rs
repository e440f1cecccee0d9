//! What every measurement shares: the programs, a folder in memory, files, and how often things are done.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{cmd, story::make_file};

/// Where files in memory are, on every Linux that there is.
const MEMORY: &str = "/dev/shm";

/// See the module. Its folder is removed at the end.
pub(crate) struct Lab {
    /// Where our binaries are.
    pub(crate) bin: PathBuf,
    /// The benchmark of the data path.
    pub(crate) data_path: PathBuf,
    /// How often everything is measured.
    pub(crate) rounds: usize,
    /// A smoke run: once, with small files.
    pub(crate) quick: bool,
    dir: PathBuf,
}

impl Lab {
    pub(crate) fn new(bin: PathBuf, quick: bool) -> Result<Self> {
        let data_path = build_bench("peer", "data_path")?;
        let dir = Path::new(MEMORY).join(format!("minitorrent-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("{} can't be made", dir.display()))?;
        Ok(Self { bin, data_path, rounds: if quick { 1 } else { 5 }, quick, dir })
    }

    /// The folder in memory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// So many bytes, or a quarter of them in a smoke run.
    pub(crate) fn bytes(&self, full: u64) -> u64 {
        if self.quick { full / 4 } else { full }
    }

    /// A file that doesn't compress, made once for each size.
    pub(crate) fn file(&self, bytes: u64) -> Result<PathBuf> {
        let dir = self.dir.join(format!("source-{bytes}"));
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("bench-{}.bin", bytes >> 20));
        make_file(&path, bytes, 7)?;
        Ok(path)
    }

    /// Removes a file that [`Lab::file`] made: memory is not endless.
    pub(crate) fn forget(&self, file: &Path) -> Result<()> {
        let dir = file.parent().context("the file has no folder")?;
        Ok(fs::remove_dir_all(dir)?)
    }

    /// Runs a fetch of the data path's benchmark; seconds and processor seconds.
    pub(crate) fn fetch(&self, args: &[&str]) -> Result<(f64, f64)> {
        let mut command = Command::new(&self.data_path);
        command.args(args);
        let out = cmd::capture(command)?;
        let json: Value = serde_json::from_str(out.trim()).with_context(|| format!("not JSON: {out:?}"))?;
        json["seconds"].as_f64().zip(json["cpu_seconds"].as_f64()).context("a number is missing")
    }

    /// Starts a server of the data path's benchmark.
    pub(crate) fn server(&self, args: &[&str]) -> Result<Server> {
        Server::start(Command::new(&self.data_path).args(args))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A process that says on its first line where it listens. Ends with it.
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let line = cmd::line(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` did not start"))?;
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut said)?;
        }
        let mut server = Self { child, address: String::new() };
        let Some(address) = said.trim().strip_prefix("listening ") else {
            let _ = server.child.kill();
            bail!("`{line}` said {said:?} instead of where it listens");
        };
        address.clone_into(&mut server.address);
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds a benchmark; its path.
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
