//! The programs that make the packages. Those of crates.io have a fixed version and live in `target/tools`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use testbed::cmd;

/// A program of crates.io.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

pub(crate) const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };
pub(crate) const CARGO_SBOM: Tool = Tool { name: "cargo-sbom", version: "0.10.0" };

/// Programs of Debian, with the packages that have them. cargo-deb finds the packages that a binary needs with
/// dpkg-shlibdeps, and would guess without it.
const OF_DEBIAN: [(&str, &str); 3] = [("dpkg-shlibdeps", "dpkg-dev"), ("tar", "tar"), ("xz", "xz-utils")];

impl Tool {
    /// Installs the tool in this version, unless it is there. Returns its path.
    pub(crate) fn ready(&self) -> Result<PathBuf> {
        let Self { name, version } = self;
        let tools = cmd::root().join("target/tools");
        let (program, root) = (tools.join("bin").join(name), tools.to_string_lossy());
        let found =
            cmd::capture(cmd::command(&program.to_string_lossy(), &["--version"])).unwrap_or_default();
        if found.split_whitespace().last() != Some(version) {
            // It runs for seconds: optimising it would take longer.
            let install = ["install", "--locked", "--force", "--profile", "dev", "--root", &root, name];
            cmd::run(cmd::command(&cmd::cargo(), &[&install[..], &["--version", version]].concat()))?;
        }
        Ok(program)
    }
}

/// Fails if a program of Debian is missing.
pub(crate) fn check() -> Result<()> {
    let missing: Vec<&str> = OF_DEBIAN
        .iter()
        .filter(|(program, _)| !cmd::works(program, &["--version"]))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!("packages can't be made without {0}: run `apt-get install {0}`", missing.join(" "));
    }
    Ok(())
}
