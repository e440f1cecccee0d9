//! The container images. With mmdebstrap the base images are made here, from Debian's packages and this
//! machine's own Rust toolchain. Dependencies are vendored, so the build needs no network. Without it the
//! Dockerfile's public defaults apply.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::cmd;

/// The image of a peer.
pub const PEER: &str = "minitorrent-peer";
const TRACKER: &str = "minitorrent-tracker";
/// Maximum size of an image, in bytes above its base.
const MOST: u64 = 60_000_000;
const RUNTIME: &str = "minitorrent-base-runtime";
const SHAPER: &str = "minitorrent-base-shaper";
const STORES: &str = "minitorrent-base-stores";
const BUILDER: &str = "minitorrent-base-builder";

/// Environment variables for docker-compose that name the base images.
pub type Bases = Vec<(&'static str, String)>;

/// Whether a Docker engine answers. Fails if one does and there is no docker-compose to test it with.
pub fn engine_answers() -> Result<bool> {
    if !cmd::works("docker", &["version"]) {
        return Ok(false);
    }
    if !has_compose()? {
        bail!("a Docker engine answers and docker-compose is not installed: install it, or stop the engine");
    }
    Ok(true)
}

/// Makes the base images where mmdebstrap is installed and none are given. Otherwise returns none, so that
/// the Dockerfile's defaults apply.
pub fn bases() -> Result<Bases> {
    let given = std::env::var_os("BUILDER_IMAGE").is_some();
    if given || !cmd::installed("mmdebstrap", &["--version"])? {
        return Ok(Vec::new());
    }
    let bases = [
        ("runtime", "RUNTIME_IMAGE", RUNTIME),
        ("builder", "BUILDER_IMAGE", BUILDER),
        ("shaper", "SHAPER_BASE_IMAGE", SHAPER),
        ("stores", "STORES_BASE_IMAGE", STORES),
    ];
    let kinds = bases.map(|(kind, _, image)| format!("{kind}={image}"));
    let mut make = cmd::command("bash", &["xtask/assets/bases.sh"]);
    make.args(kinds);
    cmd::run(make)?;
    Ok(bases.iter().map(|(_, variable, image)| (*variable, (*image).to_owned())).collect())
}

/// Copies the programs out of their images. Returns the directory.
pub fn programs() -> Result<PathBuf> {
    let into = cmd::root().join("target/image-programs");
    std::fs::create_dir_all(&into)?;
    for (image, program) in [(TRACKER, "tracker-svc"), (PEER, "peer")] {
        let id = cmd::capture(cmd::command("docker", &["create", image]))?;
        let (from, to) = (format!("{}:/usr/local/bin/{program}", id.trim()), into.to_string_lossy());
        let copied = cmd::capture(cmd::command("docker", &["cp", &from, &to]));
        cmd::capture(cmd::command("docker", &["rm", id.trim()]))?;
        copied?;
    }
    Ok(into)
}

/// Builds all images with docker-compose.yml.
pub fn build(bases: &Bases) -> Result<()> {
    // One service of each image is enough. The others would send the same context again, with the same
    // result.
    let profiles = ["--profile", "lab", "--profile", "cluster"];
    let services = ["build", "tracker", "peer1", "slow1-uplink", "postgres"];
    let mut build = compose(&[&profiles[..], &services].concat());
    build.envs(bases.iter().map(|(key, value)| (key, value)));
    cmd::run(build)?;
    let runtime = bases.iter().find(|(key, _)| *key == "RUNTIME_IMAGE");
    let base = runtime.map(|(_, image)| size_of(image)).transpose()?;
    for image in [TRACKER, PEER] {
        let size = size_of(image)?;
        let over = base.map(|base| size.saturating_sub(base));
        let shown = over.map(|over| format!(", {:.1} MB over its base", mb(over)));
        println!("{image}: {:.1} MB{}", mb(size), shown.unwrap_or_default());
        if over.is_some_and(|over| over > MOST) {
            bail!("{image} should have at most {:.0} MB over its base", mb(MOST));
        }
    }
    Ok(())
}

/// Whether docker-compose or Compose v2 is installed.
pub fn has_compose() -> Result<bool> {
    Ok(cmd::installed("docker-compose", &["version"])? || cmd::works("docker", &["compose", "version"]))
}

/// A `docker-compose` command, or `docker compose` where only Compose v2 is installed.
pub fn compose(args: &[&str]) -> std::process::Command {
    if cmd::works("docker-compose", &["version"]) {
        let mut command = cmd::command("docker-compose", args);
        // On a busy disk, the engine may take longer than the 60 s that Compose 1.29 waits for an answer.
        command.env("COMPOSE_HTTP_TIMEOUT", "300");
        return command;
    }
    cmd::command("docker", &[&["compose"], args].concat())
}

/// Size of an image in bytes.
fn size_of(image: &str) -> Result<u64> {
    let size = cmd::capture(cmd::command("docker", &["image", "inspect", "-f", "{{.Size}}", image]))?;
    size.trim().parse().with_context(|| format!("the size of {image} is {size:?}"))
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
