//! Runs the commands in README.md and docs/: every block marked `sh`, exactly as it is printed.
//!
//! README.md comes first, then docs/*.md in order of their names. All blocks run in one shell and one empty
//! directory, so a page may use the results of an earlier one. Blocks marked `console` are shown and not run.
//!
//! - [`hosts`]: blocks marked `sh at=NAME`, which need several machines.

mod block;
mod hosts;

use std::{fs, net::TcpListener, path::Path};

use anyhow::{Context as _, Result, bail};
use testbed::cmd;

use self::block::{Block, LIMIT, run_in_home};

/// The ports in the pages. Each is replaced by a free one.
const PORTS: [&str; 4] = ["7700", "7701", "9770", "9780"];

/// The page that contains the tour with containers.
const OPERATIONS: &str = "docs/operations.md";

/// Stops everything that the script left running, however the script ended.
const CLEAN_UP: &str = r#"
clean_up() {
    set +e
    for socket in */run/daemon.sock; do peer --home "${socket%/run/daemon.sock}" daemon stop; done
    kill $(jobs -p)
    wait
}
trap 'clean_up >/dev/null 2>&1' EXIT"#;

/// Runs the blocks with the binaries in `bin`. Returns the reason if some could not be run here; all others
/// have passed.
pub(crate) fn run(bin: &Path) -> Result<Option<&'static str>> {
    let blocks = all_blocks()?;
    names_every_service(&blocks)?;
    let (here, elsewhere): (Vec<Block>, Vec<Block>) =
        blocks.into_iter().partition(|block| block.host.is_none());
    run_here(bin, &here)?;
    hosts::run(bin, &elsewhere)
}

/// Runs the blocks for several machines only. Returns the reason if they could not be run here.
pub(crate) fn on_machines(bin: &Path) -> Result<Option<&'static str>> {
    let blocks: Vec<_> = all_blocks()?.into_iter().filter(|block| block.host.is_some()).collect();
    hosts::run(bin, &blocks)
}

fn all_blocks() -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for page in pages()? {
        let text = fs::read_to_string(cmd::root().join(&page))?;
        let found = blocks_of(&page, &text);
        if found.is_empty() && page == "README.md" {
            bail!("README.md has no block marked `sh`, so its commands are not tested");
        }
        blocks.extend(found);
    }
    Ok(blocks)
}

/// Returns README.md and then the pages of docs/.
fn pages() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(cmd::root().join("docs")).context("docs/ can't be read")? {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    }
    names.sort();
    names.insert(0, "README.md".to_owned());
    Ok(names)
}

/// Runs the blocks in one shell and one directory, on free ports.
fn run_here(bin: &Path, blocks: &[Block]) -> Result<()> {
    let text = |block: &Block| format!("printf '==== %s\\n' {} >&2\n{}", block.page, block.text);
    let mut lines = blocks.iter().map(text).collect::<Vec<_>>().join("\n");
    // All listeners stay open until every port is known, so that the ports differ.
    let free = PORTS.map(|port| (port, TcpListener::bind("127.0.0.1:0")));
    for (port, listener) in &free {
        let listener = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?;
        lines = lines.replace(port, &listener.local_addr()?.port().to_string());
    }
    drop(free);
    let dir = std::env::temp_dir().join(format!("minitorrent-readme-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let script = format!("set -euo pipefail\n{CLEAN_UP}\n{lines}");
    let mut command = cmd::command("timeout", &[LIMIT, "bash", "-c", &script]);
    run_in_home(&mut command, bin, &dir);
    let output = cmd::output(command, b"");
    let removed = fs::remove_dir_all(&dir);
    let output = output?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("a block of the pages failed ({}): {}", output.status, stderr.trim());
    }
    removed.with_context(|| format!("{} can't be removed", dir.display()))?;
    println!("{} blocks of the pages ran without an error", blocks.len());
    Ok(())
}

/// Runs the commands of the section on containers exactly as they are printed, with images that are already
/// built.
pub(crate) fn tour() -> Result<()> {
    let text =
        fs::read_to_string(cmd::root().join(OPERATIONS)).context("docs/operations.md can't be read")?;
    let section = text.split("\n## ").find(|section| section.starts_with("With containers"));
    let section = section.context("docs/operations.md has no section \"With containers\"")?;
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
        bail!("the tour with containers failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    println!("{} lines of the tour ran without an error", lines.len());
    Ok(())
}

/// Checks that the blocks call each service of the contract that grpcurl can reach.
fn names_every_service(blocks: &[Block]) -> Result<()> {
    let mut services = vec!["grpc.health.v1.Health".to_owned()];
    for file in fs::read_dir(cmd::root().join("proto/minitorrent/v1"))? {
        let text = fs::read_to_string(file?.path())?;
        let names = text.lines().filter_map(|line| line.strip_prefix("service ")?.split(' ').next());
        // ControlService is served only on a daemon's own socket.
        services.extend(names.filter(|name| *name != "ControlService").map(str::to_owned));
    }
    let called = |name: &String| blocks.iter().any(|block| block.text.contains(&format!("{name}/")));
    let missing: Vec<_> = services.iter().filter(|name| !called(name)).collect();
    if !missing.is_empty() {
        bail!("no page has a line that is run for {missing:?}");
    }
    Ok(())
}

/// Returns the blocks of a page that are marked `sh`. A block that is not closed is ignored.
fn blocks_of(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match &mut open {
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {
                open = marked(line).map(|host| Block {
                    page: page.to_owned(),
                    host: host.map(str::to_owned),
                    text: String::new(),
                });
            }
        }
    }
    blocks
}

/// Whether a line opens a block that is run, and the machine that it names.
fn marked(line: &str) -> Option<Option<&str>> {
    let rest = line.strip_prefix("```sh")?;
    if rest.is_empty() { Some(None) } else { rest.strip_prefix(" at=").map(Some) }
}

#[cfg(test)]
mod tests {
    use super::{Block, blocks_of};

    fn block(host: Option<&str>, text: &str) -> Block {
        Block { page: "p.md".to_owned(), host: host.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn only_blocks_marked_sh_are_run() {
        let text = "x\n```sh\na\nb\n```\ny\n```console\n$ c\n```\n```sh at=files\nd\n```\n```shell\ne\n```\n";
        assert_eq!(blocks_of("p.md", text), [block(None, "a\nb\n"), block(Some("files"), "d\n")]);
        assert!(blocks_of("p.md", "```sh\nnever closed\n").is_empty());
    }
}
