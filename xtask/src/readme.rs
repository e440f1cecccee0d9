//! Runs the README: every block marked `sh`, in order, in one shell, in an empty folder. What it tells people to type works.

use std::{fs, net::TcpListener, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// The port that the README names; a free one is used in its place.
const PORT: &str = "7700";

/// Ends whatever the script left running, whatever became of it.
const CLEAN_UP: &str = r#"
clean_up() {
    set +e
    for home in alice bob; do peer --home "$home" daemon stop >/dev/null 2>&1; done
    kill $(jobs -p) 2>/dev/null
    wait
}
trap clean_up EXIT"#;

/// Runs it with the binaries in `bin`.
pub(crate) fn run(bin: &Path) -> Result<()> {
    let text = fs::read_to_string(cmd::root().join("README.md")).context("README.md can't be read")?;
    let blocks = blocks(&text);
    if blocks.is_empty() {
        bail!("README.md has no block marked `sh`: nothing shows that what it says works");
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let dir = std::env::temp_dir().join(format!("minitorrent-readme-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let script = format!("set -euo pipefail\n{CLEAN_UP}\n{}", blocks.join("\n").replace(PORT, &port));
    let mut command = cmd::command("bash", &["-c", &script]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.current_dir(&dir).env("PATH", format!("{}:{path}", bin.display())).env("HOME", &dir);
    let output = cmd::output(command, b"");
    let removed = fs::remove_dir_all(&dir);
    let output = output?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!(
            "the README's lines failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    removed.with_context(|| format!("{} can't be removed", dir.display()))?;
    println!("{} blocks of the README did what they say", blocks.len());
    Ok(())
}

/// The text of each block marked `sh`.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match &mut open {
            Some(block) if line == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line == "```sh" => open = Some(String::new()),
            None => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn only_blocks_marked_sh_are_run() {
        let text = "x\n```sh\na\nb\n```\ny\n```console\n$ c\n```\n```sh\nd\n```\n";
        assert_eq!(blocks(text), ["a\nb\n", "d\n"]);
        assert!(blocks("```sh\nnever closed\n").is_empty());
    }
}
