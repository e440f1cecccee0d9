//! Resolves what was typed to what is meant.

use std::{
    cell::RefCell,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    args::{DaemonArgs, DaemonVerb, Global, Verb},
    exit::Failure,
};
use program::settings::Typed;
use proto::reason::Reason;

use crate::config::Config;

/// The default time limit of verbs that neither wait nor follow.
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);

/// Resolves the settings from the command line, the environment and the configuration file.
///
/// # Errors
/// Fails with the first setting that can't be used.
pub(super) fn config(global: &Global, daemon: Option<&DaemonArgs>) -> Result<Config, Failure> {
    let not_text = |name: &str, value: &OsStr| Failure::usage(format!("{name} is not UTF-8: {value:?}"));
    for (name, value) in [("--home", &global.home), ("--config", &global.config)] {
        if let Some(value) = value.as_ref().filter(|value| value.to_str().is_none()) {
            return Err(not_text(name, value.as_os_str()));
        }
    }
    let refused = RefCell::new(None);
    let env = |name: &str| {
        let value = std::env::var_os(name)?;
        value.into_string().inspect_err(|value| *refused.borrow_mut() = Some(not_text(name, value))).ok()
    };
    let config = Config::resolve(flags(global, daemon), &env, directory()).map_err(Failure::usage);
    let config = refused.take().map_or(config, Err)?;
    let paths = [Some(config.home.directory()), config.ca.as_deref(), config.config_file_given.as_deref()];
    paths.into_iter().flatten().try_for_each(needs_directory)?;
    Ok(config)
}

/// The directory that relative paths start from. Empty if it was deleted: a verb that needs no path works all
/// the same.
pub(super) fn directory() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}

/// Checks that the path does not start from a current directory that was deleted.
fn needs_directory(path: &Path) -> Result<(), Failure> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Failure::of(
        Reason::PathNotFound,
        format!(
            "{}: the current directory was deleted; give an absolute path, or go to another",
            path.display()
        ),
    ))
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
            text("advertise", &Some(daemon.advertise.join(",")).filter(|all| !all.is_empty())),
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

/// The time limit of the verb; `None` for no limit.
pub(super) fn time_limit(verb: &Verb, config: &Config) -> Option<Duration> {
    let waits = match verb {
        Verb::Daemon(args) => match &args.verb {
            Some(DaemonVerb::Stop(leaving)) => leaving.drain,
            None => true,
        },
        Verb::Logout(leaving)
        | Verb::LogoutAll(leaving)
        | Verb::LeaveGroup { leaving, .. }
        | Verb::StopShare { leaving, .. }
        | Verb::StopDownload { leaving, .. } => leaving.drain,
        Verb::JoinGroup { wait, .. } => *wait,
        Verb::ShowDownloads { follow } | Verb::Who { follow, .. } => *follow,
        Verb::Upload { .. }
        | Verb::Download { .. }
        | Verb::Get { .. }
        | Verb::Update { .. }
        | Verb::Cat { .. }
        | Verb::Watch { .. }
        | Verb::Verify(_)
        | Verb::Hash { .. }
        | Verb::Shell => true,
        _ => false,
    };
    config.timeout.or((!waits).then_some(DEFAULT_LIMIT))
}

/// The place where a download goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The file's full path.
    pub(super) path: PathBuf,
    /// Whether missing parent directories are created.
    pub(super) make_parents: bool,
}

/// Resolves DEST. If it is an existing directory or a path that ends in `/`, the file goes into it as NAME.
/// Otherwise it is the path of the file itself.
///
/// # Errors
/// Fails when the path is empty.
pub(super) fn destination(directory: &Path, dest: &Path, name: &str) -> Result<Destination, Failure> {
    let text = dest.as_os_str().as_bytes();
    if text.is_empty() {
        return Err(Failure::usage("the destination is empty; write . for the current directory"));
    }
    let as_directory = text.ends_with(b"/") || text.ends_with(b"/.") || text == b".";
    let full = directory.join(dest);
    let path = if as_directory || full.is_dir() { full.join(name) } else { full };
    Ok(Destination { path: tidy(&path), make_parents: as_directory })
}

/// Takes the operands of `upload` apart: the paths, and last the group.
///
/// # Errors
/// Fails when the group is missing or not UTF-8.
pub(super) fn uploads(path: PathBuf, mut rest: Vec<PathBuf>) -> Result<(Vec<PathBuf>, String), Failure> {
    let group =
        rest.pop().ok_or_else(|| Failure::usage("the group is missing: peer upload PATH... GROUP"))?;
    let group = text(&group)?.to_owned();
    rest.insert(0, path);
    Ok((rest, group))
}

/// What `download` was given after the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Downloads<'a> {
    /// Empty if the options say which files.
    pub(super) names: Vec<&'a str>,
    pub(super) dest: &'a Path,
}

/// Takes the operands of `download` apart: the names of files, and the destination. With `picked`, the options say
/// which files, and no names are given. The destination may be missing if there is at most one name.
///
/// # Errors
/// Fails when an operand is missing, when there is one too many, or when a name is not UTF-8.
pub(super) fn downloads(rest: &[PathBuf], picked: bool) -> Result<Downloads<'_>, Failure> {
    let here = Path::new(".");
    let (names, dest): (&[PathBuf], &Path) = match rest {
        [] if picked => (&[], here),
        [dest] if picked => (&[], dest),
        _ if picked => {
            return Err(Failure::usage(
                "with --all or --match no names are given: peer download GROUP --all DIR",
            ));
        }
        [] => {
            return Err(Failure::usage("the name of a file is missing: peer download GROUP NAME... DEST"));
        }
        [name] => (std::slice::from_ref(name), here),
        [names @ .., dest] => (names, dest),
    };
    let names = names.iter().map(|name| text(name)).collect::<Result<_, _>>()?;
    Ok(Downloads { names, dest })
}

fn text(operand: &Path) -> Result<&str, Failure> {
    operand.to_str().ok_or_else(|| Failure::usage(format!("{operand:?} is not UTF-8")))
}

/// Checks that several files can go to DEST: it is an existing directory or a path that ends in `/`.
///
/// # Errors
/// Fails when it is neither.
pub(super) fn directory_for_several(directory: &Path, dest: &Path) -> Result<(), Failure> {
    let is_file = destination(directory, dest, "name")?.path == tidy(&directory.join(dest));
    if !is_file {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "several files need a directory, and {} is none; end it with a / to have it made",
        dest.display()
    )))
}

/// Returns the absolute path of a file.
///
/// # Errors
/// Fails when the path starts from a current directory that was deleted.
pub(super) fn absolute(directory: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let full = tidy(&directory.join(path));
    needs_directory(&full)?;
    Ok(full)
}

/// Removes `.` and repeated slashes. `..` stays, because the part before it may be a symbolic link.
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
        for (typed, is_directory) in [("out", true), ("new/", true), (".", true), ("new", false)] {
            assert_eq!(directory_for_several(here.path(), Path::new(typed)).is_ok(), is_directory, "{typed}");
        }
        let rooted = destination(here.path(), Path::new("/x/"), "n").expect("good");
        assert_eq!(rooted.path, Path::new("/x/n"));
    }

    #[test]
    fn operands() {
        let words = |line: &str| line.split(' ').map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(uploads("a".into(), words("g")), Ok((words("a"), "g".to_owned())));
        assert_eq!(uploads("a".into(), words("b c g")), Ok((words("a b c"), "g".to_owned())));
        assert!(uploads("a".into(), vec![]).is_err());
        for (line, picked, names, dest) in [
            ("n", false, vec!["n"], "."),
            ("n d", false, vec!["n"], "d"),
            ("n m d", false, vec!["n", "m"], "d"),
            ("d", true, vec![], "d"),
        ] {
            let expected = Downloads { names, dest: Path::new(dest) };
            assert_eq!(downloads(&words(line), picked), Ok(expected), "{line}");
        }
        assert_eq!(downloads(&[], true).map(|all| all.dest.to_owned()), Ok(".".into()));
        assert!(downloads(&[], false).is_err());
        assert!(downloads(&words("n d"), true).is_err());
    }
}
