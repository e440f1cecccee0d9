//! The container images. Where the bases can be made here, they are: from Debian's packages and this machine's own Rust
//! toolchain, with the dependencies vendored, so that the build needs no network. Else the Dockerfile's public defaults hold.

use anyhow::{Context as _, Result, bail};

use crate::cmd;

pub(crate) const PEER: &str = "minitorrent-peer";
const TRACKER: &str = "minitorrent-tracker";
/// Bytes that an image may have over its base.
const MOST: u64 = 60_000_000;
const RUNTIME: &str = "minitorrent-base-runtime";
const NETTOOLS: &str = "minitorrent-base-nettools";
const BUILDER: &str = "minitorrent-base-builder";

/// Environment for docker-compose: which bases to build on.
pub(crate) type Bases = Vec<(&'static str, String)>;

/// Whether an engine answers, and there is what drives it.
pub(crate) fn engine_answers() -> bool {
    cmd::works("docker", &["version"]) && has_compose()
}

/// The bases: made here if they can be and are not given, else none, and the Dockerfile's defaults hold.
pub(crate) fn bases() -> Result<Bases> {
    let given = std::env::var_os("BUILDER_IMAGE").is_some();
    if given || !can_make_bases() { Ok(Vec::new()) } else { make_bases() }
}

/// Builds all images by docker-compose.yml.
pub(crate) fn build(bases: &Bases) -> Result<()> {
    // One service of each image: the others would send the same context again, for the same answer.
    let mut build = compose(&["--profile", "lab", "build", "tracker", "peer1", "slow1-uplink"]);
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

/// Whether either is there.
pub(crate) fn has_compose() -> bool {
    cmd::works("docker-compose", &["version"]) || cmd::works("docker", &["compose", "version"])
}

/// `docker-compose`, or its successor where that is what there is.
pub(crate) fn compose(args: &[&str]) -> std::process::Command {
    if cmd::works("docker-compose", &["version"]) {
        return cmd::command("docker-compose", args);
    }
    cmd::command("docker", &[&["compose"], args].concat())
}

fn can_make_bases() -> bool {
    cmd::works("debootstrap", &["--version"]) && cmd::works("sh", &["-c", "test $(id -u) = 0"])
}

fn make_bases() -> Result<Bases> {
    cmd::run(cmd::command("bash", &["xtask/assets/bases.sh", RUNTIME, BUILDER, NETTOOLS]))?;
    Ok(vec![
        ("BUILDER_IMAGE", BUILDER.to_owned()),
        ("RUNTIME_IMAGE", RUNTIME.to_owned()),
        ("SHAPER_BASE_IMAGE", NETTOOLS.to_owned()),
    ])
}

/// Bytes.
fn size_of(image: &str) -> Result<u64> {
    let size = cmd::capture(cmd::command("docker", &["image", "inspect", "-f", "{{.Size}}", image]))?;
    size.trim().parse().with_context(|| format!("the size of {image} is {size:?}"))
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
