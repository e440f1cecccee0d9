//! The programs under test: builds them, starts one that prints its address, and makes files for them.

use std::{
    fs,
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// Builds the two binaries and returns their directory. For `dev` it builds what the tests are built from too: cargo
/// chooses the features of a dependency by all that it builds at once, and after the tests nothing is left to build.
pub fn build(dev: bool) -> Result<PathBuf> {
    let mut args = vec!["build", "--locked"];
    if dev {
        println!("with the binaries that the tests are built with: slower, and nothing more to build");
        args.extend(["--workspace", "--bins", "--tests"]);
    } else {
        args.extend(["--release", "-p", "tracker-svc", "-p", "peer", "--bins"]);
    }
    cmd::run(cmd::command(&cmd::cargo(), &args))?;
    Ok(cmd::target().join(if dev { "debug" } else { "release" }))
}

/// Creates a file of bytes that don't repeat and don't compress. The same seed gives the same bytes.
pub fn make_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out =
        BufWriter::new(fs::File::create(path).with_context(|| format!("{} can't be made", path.display()))?);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut left = bytes;
    while left > 0 {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        let take = left.min(8);
        out.write_all(&word[..usize::try_from(take).unwrap_or(8)])?;
        left -= take;
    }
    out.flush()?;
    Ok(())
}

/// A process that prints the address it listens on. It is killed when this is dropped.
pub struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    address: String,
    printed: String,
}

/// How a server ended.
pub struct Gone {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed besides where it listens.
    pub printed: String,
    /// The time from the signal to the end.
    pub took: Duration,
}

impl Server {
    /// Starts the process and waits until it prints `listening ADDRESS`. Fails if it ends before.
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = cmd::line(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{line}` did not start"))?;
        let out = child.stdout.take().context("its output is not piped")?;
        let mut server =
            Self { child, out: BufReader::new(out), address: String::new(), printed: String::new() };
        let mut said = String::new();
        // What starts the process may print something before, on the same line too.
        while server.out.read_line(&mut said)? > 0 {
            if let Some((before, address)) = said.trim_end().split_once("listening ") {
                (server.printed, server.address) = (before.to_owned(), address.to_owned());
                return Ok(server);
            }
        }
        bail!("`{line}` said {said:?} instead of where it listens");
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address that the process printed.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the process goes on.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills the process at once, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends the process a signal by name, such as `TERM`, and waits until it ends.
    pub fn end(&mut self, signal: &str) -> Result<Gone> {
        let start = Instant::now();
        self.signal(signal)?;
        self.wait(start)
    }

    /// Sends the process a signal by name.
    pub fn signal(&self, signal: &str) -> Result<()> {
        cmd::capture(cmd::command("sh", &["-c", &format!("kill -{signal} {}", self.pid())])).map(drop)
    }

    /// Waits until the process ends. `start` is when it was told to.
    pub fn wait(&mut self, start: Instant) -> Result<Gone> {
        let status = self.child.wait()?;
        let took = start.elapsed();
        self.out.read_to_string(&mut self.printed)?;
        Ok(Gone { status, printed: self.printed.clone(), took })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
