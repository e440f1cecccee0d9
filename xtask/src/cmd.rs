//! Running other programs: shown before they run, and a failure names the whole line.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The workspace's root: where `cargo xtask` finds everything else.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// The cargo that runs us, else the one on PATH.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// A command in the workspace's root.
///
/// What cargo told us of this very package is kept from it: the build scripts of some crates look at it, and would build
/// half of the tree anew at each change between `cargo xtask …` and a cargo that was called by hand.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
        });
        if ours {
            command.env_remove(name);
        }
    }
    command
}

/// As a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command that prints for itself; fails unless it succeeds.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let line = line(&command);
    println!("$ {line}");
    std::io::stdout().flush()?;
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("`{line}` did not start"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a command and gives all that it printed, whatever its exit code. `stdin` is what it reads.
pub(crate) fn output(mut command: Command, stdin: &[u8]) -> Result<Output> {
    let line = line(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` did not start"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input may be gone already; what it printed tells.
        let _ = pipe.write_all(stdin);
    }
    child.wait_with_output().with_context(|| format!("`{line}` could not be waited for"))
}

/// What a command printed on stdout; fails unless it succeeds.
pub(crate) fn capture(command: Command) -> Result<String> {
    let line = line(&command);
    let output = output(command, b"")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be run here at all.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    output(command(program, args), b"").is_ok_and(|output| output.status.success())
}
