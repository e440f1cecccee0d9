//! The container images. Where the bases can be made here, they are: from Debian's packages and this machine's own Rust
//! toolchain, with the dependencies vendored, so that the build needs no network. Else the Dockerfile's public defaults hold.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::cmd;

const RUNTIME: &str = "minitorrent-base-runtime";
const TOOLCHAIN: &str = "minitorrent-base-toolchain";
const NETTOOLS: &str = "minitorrent-base-nettools";
const BUILDER: &str = "minitorrent-base-builder";

/// Environment for docker-compose: which bases to build on.
pub(crate) type Bases = Vec<(&'static str, String)>;

/// Whether an engine answers.
pub(crate) fn engine_answers() -> bool {
    cmd::works("docker", &["version"])
}

/// The bases: made here if they can be and are not given, else none, and the Dockerfile's defaults hold.
pub(crate) fn bases() -> Result<Bases> {
    let given = std::env::var_os("BUILDER_IMAGE").is_some();
    if given || !can_make_bases() { Ok(Vec::new()) } else { make_bases() }
}

/// Builds all images by docker-compose.yml.
pub(crate) fn build(bases: &Bases) -> Result<()> {
    for profile in [&["build"][..], &["--profile", "lab", "build"]] {
        let mut build = compose(profile);
        build.envs(bases.iter().map(|(key, value)| (key, value)));
        cmd::run(build)?;
    }
    let base = if bases.is_empty() { None } else { Some(size_of(RUNTIME)?) };
    for image in ["minitorrent-tracker", "minitorrent-peer"] {
        let size = size_of(image)?;
        let over = base.map(|base| format!(", {:.1} MB over its base", mb(size.saturating_sub(base))));
        println!("{image}: {:.1} MB{}", mb(size), over.unwrap_or_default());
    }
    Ok(())
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
    cmd::run(cmd::command("bash", &["xtask/assets/bases.sh", RUNTIME, TOOLCHAIN, NETTOOLS]))?;
    add_dependencies()?;
    Ok(vec![
        ("BUILDER_IMAGE", BUILDER.to_owned()),
        ("RUNTIME_IMAGE", RUNTIME.to_owned()),
        ("SHAPER_BASE_IMAGE", NETTOOLS.to_owned()),
    ])
}

/// The toolchain's image with every crate of Cargo.lock in it, and cargo told to look nowhere else.
fn add_dependencies() -> Result<()> {
    let root = cmd::root();
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock can't be read")?;
    // Which crates there are, not which of ours uses which.
    let crates: Vec<&str> = lock.lines().filter(|line| line.starts_with("checksum = ")).collect();
    let toolchain = cmd::capture(cmd::command("docker", &["image", "inspect", "-f", "{{.Id}}", TOOLCHAIN]))?;
    let mut hasher = DefaultHasher::new();
    (crates, &toolchain).hash(&mut hasher);
    let recipe = format!("{:016x}", hasher.finish());
    let label = cmd::command(
        "docker",
        &["image", "inspect", "-f", r#"{{index .Config.Labels "minitorrent.recipe"}}"#, BUILDER],
    );
    if cmd::capture(label).is_ok_and(|found| found.trim() == recipe) {
        println!("up to date: {BUILDER}");
        return Ok(());
    }
    let context = root.join("target/builder-image");
    write_context(&context)?;
    let label = format!("minitorrent.recipe={recipe}");
    let mut build = cmd::command(
        "docker",
        &["build", "--quiet", "--network=none", "--label", &label, "--tag", BUILDER, "."],
    );
    build.current_dir(&context).env("DOCKER_BUILDKIT", "0");
    cmd::run(build)?;
    fs::remove_dir_all(&context).context("the builder image's context can't be removed")
}

fn write_context(context: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(context);
    fs::create_dir_all(context)?;
    let vendor = context.join("vendor");
    let mut command = cmd::command(&cmd::cargo(), &["vendor", "--locked", "--quiet", "--versioned-dirs"]);
    command.arg(&vendor);
    cmd::capture(command)?;
    let config = "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = \"/usr/local/vendor\"\n\n[net]\noffline = true\n";
    fs::write(context.join("config.toml"), config)?;
    let dockerfile = format!(
        "FROM {TOOLCHAIN}\nCOPY vendor /usr/local/vendor\nCOPY config.toml /usr/local/cargo/config.toml\n"
    );
    fs::write(context.join("Dockerfile"), dockerfile)?;
    Ok(())
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
