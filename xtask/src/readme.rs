//! Runs the README: every block marked `sh`, in order, in one shell, in an empty folder. What it tells people to type works.

use std::{fs, net::TcpListener, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// The ports that the README names; free ones are used in their place.
const PORTS: [&str; 2] = ["7700", "7701"];

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
    let text = blocks.join("\n");
    names_every_service(&text)?;
    // Held until all are known, so that they differ.
    let free = PORTS.map(|port| (port, TcpListener::bind("127.0.0.1:0")));
    let mut lines = text;
    for (port, listener) in &free {
        let listener = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?;
        lines = lines.replace(port, &listener.local_addr()?.port().to_string());
    }
    drop(free);
    let dir = std::env::temp_dir().join(format!("minitorrent-readme-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let script = format!("set -euo pipefail\n{CLEAN_UP}\n{lines}");
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

/// Types what the section on containers says, word by word, with images that are there.
pub(crate) fn tour() -> Result<()> {
    let text = fs::read_to_string(cmd::root().join("README.md")).context("README.md can't be read")?;
    let section = text.split("\n## ").find(|section| section.starts_with("With containers"));
    let section = section.context("README.md has no section \"With containers\"")?;
    let lines: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("$ ").or_else(|| line.strip_prefix("> ")))
        .collect();
    let dir = std::env::temp_dir().join(format!("minitorrent-tour-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let script = format!(
        "set -euo pipefail
         command -v docker-compose >/dev/null || docker-compose() {{ docker compose \"$@\"; }}
         trap 'docker-compose down --volumes 2>/dev/null' EXIT
         head -c 20000000 /dev/urandom >movie.mp4\nset -x\n{}",
        lines.join("\n")
    );
    let mut command = cmd::command("bash", &["-c", &script]);
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    command.current_dir(&dir).env("COMPOSE_FILE", cmd::root().join("docker-compose.yml"));
    command.env("COMPOSE_PROJECT_NAME", "minitorrent-tour").env("TRACKER_HOST_PORT", port.to_string());
    let done = cmd::output(command, b"");
    fs::remove_dir_all(&dir)?;
    let done = done?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    if !done.status.success() {
        bail!("the README's tour failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    println!("{} lines of the README's tour did what they say", lines.len());
    Ok(())
}

/// Each service of the contract that grpcurl can reach is called by some line.
fn names_every_service(lines: &str) -> Result<()> {
    let mut services = vec!["grpc.health.v1.Health".to_owned()];
    for file in fs::read_dir(cmd::root().join("proto/minitorrent/v1"))? {
        let text = fs::read_to_string(file?.path())?;
        let names = text.lines().filter_map(|line| line.strip_prefix("service ")?.split(' ').next());
        // That one is on a daemon's own socket alone.
        services.extend(names.filter(|name| *name != "ControlService").map(str::to_owned));
    }
    let missing: Vec<_> = services.iter().filter(|name| !lines.contains(&format!("{name}/"))).collect();
    if !missing.is_empty() {
        bail!("README.md has no line that is run for {missing:?}");
    }
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
