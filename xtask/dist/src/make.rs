//! Builds the programs and makes every file of a release of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use testbed::cmd;

use crate::{
    programs::{PROGRAMS, Program},
    tools::{self, CARGO_DEB, CARGO_SBOM},
};

/// The profile of Cargo.toml.
const PROFILE: &str = "packages";
/// A binary may have at most this size, in bytes.
const MOST: u64 = 20 << 20;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A version of the packages that is higher than any other.
const UPGRADE: &str = "9999-1";
/// The unit of a service names this directory. The unit in a package names `/usr/bin` instead.
const BY_HAND: &str = "/usr/local/bin/";

/// Shells, and what stands before and after the program's name in the name of the shell's completion script.
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ".bash"), ("zsh", "_", ""), ("fish", "", ".fish")];

/// The directory of the files of a release.
pub(crate) fn output() -> PathBuf {
    cmd::root().join("target/dist")
}

/// What is generated for the packages. `[package.metadata.deb]` names this directory.
fn generated() -> PathBuf {
    cmd::root().join("target/packaging")
}

/// Makes all files of a release.
pub(crate) fn all() -> Result<()> {
    tools::check()?;
    let (cargo_deb, cargo_sbom) = (CARGO_DEB.ready()?, CARGO_SBOM.ready()?);
    let build = ["build", "--profile", PROFILE, "--locked", "-p", "tracker-svc", "-p", "peer", "--bins"];
    cmd::run(cmd::command(&cmd::cargo(), &build))?;
    for directory in [output(), generated()] {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
    }
    for program in &PROGRAMS {
        check_size(program)?;
        generate(program)?;
        package(&cargo_deb, program, &output(), &[])?;
        bill_of_materials(&cargo_sbom, program)?;
    }
    tarball()?;
    checksums()
}

/// Makes packages of the same programs with a higher version. Returns their directory.
pub(crate) fn upgrade() -> Result<PathBuf> {
    let into = generated().join("upgrade");
    fs::create_dir_all(&into)?;
    for program in &PROGRAMS {
        package(&CARGO_DEB.ready()?, program, &into, &["--deb-version", UPGRADE])?;
    }
    Ok(into)
}

fn binary(program: &Program) -> PathBuf {
    cmd::target().join(PROFILE).join(program.name)
}

fn check_size(program: &Program) -> Result<()> {
    let (path, mib) = (binary(program), f64::from(1 << 20));
    let bytes = fs::metadata(&path).with_context(|| format!("{} was not built", path.display()))?.len();
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let size = bytes as f64 / mib;
    println!("{}: {size:.1} MiB, stripped", program.name);
    ensure!(
        bytes <= MOST,
        "{} has {size:.1} MiB and may have at most {}: `cargo bloat --profile {PROFILE} --crates -p {}` shows what is large",
        program.name,
        MOST >> 20,
        program.name
    );
    Ok(())
}

/// Makes the manual page, the completion scripts and the unit.
fn generate(program: &Program) -> Result<()> {
    let write = |name: &str, text: &str| {
        fs::write(generated().join(name), text).with_context(|| format!("{name} can't be written"))
    };
    let (binary, name) = (binary(program).to_string_lossy().into_owned(), program.name);
    write(&format!("{name}.1"), &cmd::capture(cmd::command(&binary, &["man"]))?)?;
    for (shell, before, after) in SHELLS {
        let script = cmd::capture(cmd::command(&binary, &["completions", shell]))?;
        write(&format!("{before}{name}{after}"), &script)?;
    }
    write(&unit_name(program), &packaged(&unit(program)?)?)
}

fn unit_name(program: &Program) -> String {
    format!("{}.service", program.package)
}

/// The file of this name in the folder `dist` of the program's crate.
fn in_dist(program: &Program, name: &str) -> PathBuf {
    cmd::root().join(program.folder).join("dist").join(name)
}

/// The unit as it is in the tree, for programs that were installed by hand.
fn unit(program: &Program) -> Result<String> {
    let path = in_dist(program, &unit_name(program));
    fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))
}

/// The unit for the programs of a package.
fn packaged(unit: &str) -> Result<String> {
    let start = format!("ExecStart={BY_HAND}");
    ensure!(
        unit.contains(&start),
        "the unit has no line {start}…: change it in xtask/dist/src/make.rs where it has changed"
    );
    Ok(unit.replace(&start, "ExecStart=/usr/bin/"))
}

fn package(cargo_deb: &Path, program: &Program, into: &Path, more: &[&str]) -> Result<()> {
    let (cargo_deb, into) = (cargo_deb.to_string_lossy(), into.to_string_lossy());
    // It would warn of the generated files, which it takes for programs that were not built.
    let what = ["--quiet", "--no-build", "--no-strip", "--locked", "-p", program.name];
    let mut command = cmd::command(&cargo_deb, &[&what[..], &["--output", &into], more].concat());
    command.env("SOURCE_DATE_EPOCH", time()?);
    cmd::run(command)
}

/// The time of the last commit, in seconds since 1970. Files of the packages get it, so that the same commit
/// gives the same packages.
fn time() -> Result<String> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(given);
    }
    let time = cmd::capture(cmd::command("git", &["log", "-1", "--format=%ct"]))
        .context("the time of the files comes from git: outside of a clone, set SOURCE_DATE_EPOCH")?;
    Ok(time.trim().to_owned())
}

/// Lists the crates in a program, as SPDX.
fn bill_of_materials(cargo_sbom: &Path, program: &Program) -> Result<()> {
    let words = ["--cargo-package", program.name, "--output-format", "spdx_json_2_3"];
    let text = cmd::capture(cmd::command(&cargo_sbom.to_string_lossy(), &words))?;
    let found: serde_json::Value = serde_json::from_str(&text).context("cargo-sbom printed no JSON")?;
    let crates = found["packages"].as_array().map_or(0, Vec::len);
    ensure!(crates > 1, "cargo-sbom found {crates} crates in {}", program.name);
    fs::write(output().join(format!("{}-{VERSION}.spdx.json", program.package)), text)?;
    println!("{}: {crates} crates in its SBOM", program.name);
    Ok(())
}

/// Packs both programs with all that belongs to them.
fn tarball() -> Result<()> {
    let name = format!("minitorrent-{VERSION}-{}-linux", std::env::consts::ARCH);
    let inside = generated().join(&name);
    for folder in ["bin", "completions", "man", "service"] {
        fs::create_dir_all(inside.join(folder))?;
    }
    let copy = |from: &Path, to: &str| {
        let to = if to.is_empty() { inside.clone() } else { inside.join(to) };
        let file = from.file_name().with_context(|| format!("{} is no file", from.display()))?;
        fs::copy(from, to.join(file)).with_context(|| format!("{} can't be copied", from.display()))
    };
    for program in &PROGRAMS {
        copy(&binary(program), "bin")?;
        copy(&generated().join(format!("{}.1", program.name)), "man")?;
        for (_, before, after) in SHELLS {
            copy(&generated().join(format!("{before}{}{after}", program.name)), "completions")?;
        }
        for file in [&unit_name(program), &format!("{}.sysusers", program.package), program.settings] {
            copy(&in_dist(program, file), "service")?;
        }
    }
    for page in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&cmd::root().join(page), "")?;
    }
    let (from, to) = (generated(), output().join(format!("{name}.tar.xz")));
    let (from, to, time) = (from.to_string_lossy(), to.to_string_lossy(), format!("@{}", time()?));
    let same =
        ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=go-w,a+rX", "--mtime", &time];
    cmd::run(cmd::command("tar", &[&same[..], &["-C", &from, "-cJf", &to, &name]].concat()))
}

/// Writes the checksums of all files, and prints them.
fn checksums() -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(output())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut sums = Command::new("sha256sum");
    sums.args(&names).current_dir(output());
    let sums = cmd::capture(sums)?;
    fs::write(output().join("SHA256SUMS"), &sums)?;
    println!("\nin {}:\n{sums}", output().display());
    Ok(())
}

/// The package of this program in a directory.
pub(crate) fn deb_of(program: &Program, directory: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&format!("{}_", program.package)) && name.ends_with(".deb") {
            found.push(path);
        }
    }
    match found.pop() {
        Some(deb) if found.is_empty() => Ok(deb),
        _ => bail!("{} should hold one package {}", directory.display(), program.package),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use testbed::cmd;

    use super::{PROFILE, PROGRAMS, SHELLS, packaged, unit};

    fn metadata() -> Value {
        let words = ["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"];
        let text = cmd::capture(cmd::command(&cmd::cargo(), &words)).expect("cargo reads the manifests");
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn every_asset_is_in_the_tree_or_generated() {
        let metadata = metadata();
        for program in &PROGRAMS {
            let name = program.name;
            let mut generated: Vec<String> = SHELLS
                .iter()
                .map(|(_, before, after)| format!("../target/packaging/{before}{name}{after}"))
                .collect();
            generated.push(format!("target/release/{name}"));
            generated.push(format!("../target/packaging/{name}.1"));
            let mut crates = metadata["packages"].as_array().into_iter().flatten();
            let deb = &crates.find(|found| found["name"] == name).expect("a crate")["metadata"]["deb"];
            assert_eq!(deb["name"], program.package);
            assert_eq!(deb["profile"], PROFILE);
            let folder = cmd::root().join(program.folder);
            for asset in deb["assets"].as_array().expect("assets") {
                let source = asset[0].as_str().expect("a path");
                match generated.iter().position(|known| known == source) {
                    Some(at) => drop(generated.remove(at)),
                    None => assert!(folder.join(source).is_file(), "{name}: nothing is or makes {source}"),
                }
            }
            assert!(generated.is_empty(), "{name}: not in the package: {generated:?}");
            assert_eq!(deb["systemd-units"]["unit-scripts"], "../target/packaging");
            let scripts = folder.join(deb["maintainer-scripts"].as_str().expect("a folder"));
            let script = std::fs::read_to_string(scripts.join("postrm")).expect("a script");
            assert!(script.contains("#DEBHELPER#"), "cargo-deb puts its part there");
        }
    }

    #[test]
    fn the_unit_of_a_package_differs_in_the_path_of_its_program_alone() {
        for program in &PROGRAMS {
            let ours = unit(program).expect("a unit");
            let made = packaged(&ours).expect("it names the program");
            let changed: Vec<&str> =
                made.lines().zip(ours.lines()).filter(|(a, b)| a != b).map(|(made, _)| made).collect();
            assert_eq!(changed.len(), 1);
            assert!(changed[0].starts_with(&format!("ExecStart=/usr/bin/{} ", program.name)));
            let package = program.package;
            assert!(made.contains(&format!("\nUser={package}\nStateDirectory={package}\n")));
            let settings = format!("_CONFIG=/etc/minitorrent/{}\n", program.settings);
            assert!(made.contains(&settings), "{package}");
            let users = super::in_dist(program, &format!("{package}.sysusers"));
            let users = std::fs::read_to_string(users).expect("the user");
            assert!(users.contains(&format!("\nu {package} - ")), "{users}");
        }
        assert!(packaged("ExecStart=/opt/peer daemon\n").is_err());
    }
}
