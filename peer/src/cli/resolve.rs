//! From what was typed to what is meant.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    args::{DaemonArgs, Global, Verb},
    exit::Failure,
};
use proto::settings::Typed;

use crate::config::Config;

/// How long verbs may take that neither wait nor follow, unless told otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);

/// The settings that a command line means, with its environment and configuration file.
///
/// # Errors
/// The first one that can't be used.
pub(super) fn config(global: &Global, daemon: Option<&DaemonArgs>) -> Result<Config, Failure> {
    let directory = std::env::current_dir().map_err(|error| Failure::io("the current directory", &error))?;
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    Config::resolve(flags(global, daemon), &env, directory).map_err(Failure::usage)
}

fn flags(global: &Global, daemon: Option<&DaemonArgs>) -> Typed {
    let text = |name, value: &Option<String>| value.clone().map(|value| (name, value));
    let path = |name, value: &Option<PathBuf>| {
        value.as_ref().map(|value| (name, value.to_string_lossy().into_owned()))
    };
    let set = |name, value: bool| value.then(|| (name, "true".to_owned()));
    let mut flags: Typed = [
        path("home", &global.home),
        path("config", &global.config),
        text("tracker", &global.tracker),
        text("ca", &global.ca),
        text("ca_sha256", &global.ca_sha256),
        text("timeout", &global.timeout),
        text("log", &global.log),
        text("log_format", &global.log_format),
        set("json", global.json),
        set("quiet", global.quiet),
        set("no_autostart", global.no_autostart),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(daemon) = daemon {
        let more = [
            text("listen", &daemon.listen),
            text("advertise", &daemon.advertise),
            text("upload_limit", &daemon.upload_limit),
            text("download_limit", &daemon.download_limit),
            text("upload_slots", &daemon.upload_slots),
            text("congestion", &daemon.congestion),
            text("picker_seed", &daemon.picker_seed),
            text("metrics", &daemon.metrics),
        ];
        flags.extend(more.into_iter().flatten());
    }
    flags
}

/// How long the verb may take; none for no limit.
pub(super) fn time_limit(verb: &Verb, config: &Config) -> Option<Duration> {
    let waits = match verb {
        Verb::Daemon(args) => args.verb.is_none(),
        Verb::JoinGroup { wait, .. } => *wait,
        Verb::ShowDownloads { follow } => *follow,
        Verb::Upload { .. } | Verb::Download { .. } | Verb::Verify(_) | Verb::Hash { .. } | Verb::Shell => {
            true
        }
        _ => false,
    };
    config.timeout.or((!waits).then_some(DEFAULT_LIMIT))
}

/// Where a download goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The file's full path.
    pub(super) path: PathBuf,
    /// Missing parent directories are to be made.
    pub(super) make_parents: bool,
}

/// What DEST means: an existing directory, or a path that ends in `/`, is where NAME goes; else it is the file itself.
///
/// # Errors
/// When it can't be named in UTF-8.
pub(super) fn destination(directory: &Path, dest: &Path, name: &str) -> Result<Destination, Failure> {
    let text = dest.to_str().ok_or_else(|| Failure::usage(format!("{dest:?} is not UTF-8")))?;
    if text.is_empty() {
        return Err(Failure::usage("the destination is empty; . is the current directory"));
    }
    let as_directory = text.ends_with('/') || text.ends_with("/.") || text == ".";
    let full = directory.join(dest);
    let path = if as_directory || full.is_dir() { full.join(name) } else { full };
    Ok(Destination { path: tidy(&path), make_parents: as_directory })
}

/// The absolute path of a file, as text.
///
/// # Errors
/// When it can't be named in UTF-8.
pub(super) fn absolute(directory: &Path, path: &Path) -> Result<String, Failure> {
    let full = tidy(&directory.join(path));
    full.into_os_string().into_string().map_err(|path| Failure::usage(format!("{path:?} is not UTF-8")))
}

/// Without `.` and doubled slashes; `..` stays, for what is before it may be a symbolic link.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let here = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(here.path().join("out")).expect("made");
        for (typed, file, make_parents) in [
            ("out", "out/movie.mp4", false),
            ("./out/", "out/movie.mp4", true),
            ("new/", "new/movie.mp4", true),
            ("new/deep/", "new/deep/movie.mp4", true),
            ("new", "new", false),
            ("out/film.mp4", "out/film.mp4", false),
            (".", "movie.mp4", true),
        ] {
            let path = here.path().join(file);
            assert_eq!(
                destination(here.path(), Path::new(typed), "movie.mp4"),
                Ok(Destination { path, make_parents }),
                "{typed}"
            );
        }
        assert!(destination(here.path(), Path::new(""), "movie.mp4").is_err());
        let rooted = destination(here.path(), Path::new("/x/"), "n").expect("good");
        assert_eq!(rooted.path, Path::new("/x/n"));
    }
}
