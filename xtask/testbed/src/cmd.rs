//! Runs other programs. The command is printed before it runs, and an error contains the whole command line.

use std::{
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).map_or(manifest.clone(), Path::to_path_buf)
}

/// The directory that cargo builds in.
pub fn target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR");
    given.map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this program, or else the one on PATH.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Creates a command that runs in the root of the workspace.
///
/// The command does not see the variables that cargo set for this package. The build scripts of some crates
/// depend on them, and would rebuild half of the tree whenever `cargo xtask …` and a cargo that was called by
/// hand alternate.
pub fn command(program: &str, args: &[&str]) -> Command {
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

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command with inherited output. Fails if the command fails.
pub fn run(mut command: Command) -> Result<()> {
    let line = line(&command);
    println!("$ {line}");
    std::io::stdout().flush()?;
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("`{line}` did not start"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a command with `stdin` as its input and returns its output, whatever its exit code.
pub fn output(mut command: Command, stdin: &[u8]) -> Result<Output> {
    let line = line(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` did not start"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input may have ended already. Its output shows the reason.
        let _ = pipe.write_all(stdin);
    }
    child.wait_with_output().with_context(|| format!("`{line}` could not be waited for"))
}

/// Returns the stdout of a command. Fails if the command fails.
pub fn capture(command: Command) -> Result<String> {
    let line = line(&command);
    let output = output(command, b"")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is installed here. Fails if it is, and `probe` (as a rule `--version`) fails: then the
/// program is broken, and what it would check must not count as left out.
pub fn installed(program: &str, probe: &[&str]) -> Result<bool> {
    match command(program, probe).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{program}` is installed here and does not work ({}): {}", output.status, stderr.trim())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("`{program}` did not start")),
    }
}

/// Whether cargo has this subcommand.
pub fn cargo_has(subcommand: &str) -> Result<bool> {
    let list = capture(command(&cargo(), &["--list"]))?;
    Ok(list.lines().any(|line| line.split_whitespace().next() == Some(subcommand)))
}

/// Whether a program runs here and succeeds with these arguments.
pub fn works(program: &str, args: &[&str]) -> bool {
    output(command(program, args), b"").is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::installed;

    #[test]
    fn a_broken_program_is_not_a_missing_one() {
        assert!(installed("sh", &["-c", "true"]).expect("it works"));
        assert!(!installed("no-such-program-anywhere", &[]).expect("it is missing"));
        let broken = installed("sh", &["-c", "echo why >&2; exit 3"]).expect_err("it is broken");
        assert!(
            broken.to_string().contains("does not work") && broken.to_string().contains("why"),
            "{broken}"
        );
    }
}
