//! Settings that both programs resolve in the same way: flag, then environment, then configuration file, then
//! default; and where each value came from.
//!
//! A program names its settings in one table ([`Setting`]); what was typed in each layer is text. [`Settings::resolve`]
//! picks the text that counts, and [`Settings::parse`] makes a value of it, naming the setting when it can't.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

/// A setting: its name in the configuration file (with `-` for `_`, its flag), and what it is without one.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name in the configuration file.
    pub name: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// What holds when nothing is set; empty for nothing.
    pub default: &'static str,
    /// How its text is read.
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A single value.
    Plain,
    /// A relative path is meant from where it was written.
    Path,
    /// A path that can't stand in the file: the file's own.
    Outside,
    /// Several values: an array in the file, joined by commas elsewhere.
    List,
}

impl Setting {
    /// A single value.
    pub const fn plain(name: &'static str, env: &'static str, default: &'static str) -> Self {
        Self { name, env, default, kind: Kind::Plain }
    }

    /// A path, none by default. A relative one is meant from where it was written.
    pub const fn path(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::Path }
    }

    /// As [`Setting::path`], for the file's own path, which can't stand in it.
    pub const fn outside(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::Outside }
    }

    /// Several values, none by default: an array in the file, joined by commas elsewhere.
    pub const fn list(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::List }
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not TOML, or holds what it should not.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A value is off.
    #[error("{name} (from the {origin}): {message}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Where its value came from.
        origin: Origin,
        /// What is wrong with it.
        message: String,
    },
}

/// A value as it stands, for `config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The setting's name.
    pub name: &'static str,
    /// Its value as text; empty for none.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// Settings as typed: name → text.
pub type Typed = BTreeMap<&'static str, String>;

/// What settings are resolved from. The environment is an argument, so that tests need not change their own.
pub struct Layers<'a> {
    /// From the command line.
    pub flags: Typed,
    /// Reads an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The configuration file. Absolute.
    pub file: PathBuf,
    /// The file was asked for, so it must be there.
    pub file_asked: bool,
    /// What relative paths in flags and environment start from. Absolute.
    pub directory: PathBuf,
}

/// Every setting of a table as it stands.
#[derive(Clone, Debug)]
pub struct Settings(Vec<Shown>);

impl Settings {
    /// Picks the text that counts for every setting of `table`.
    ///
    /// # Errors
    /// When the file can't be read, is not TOML, or holds a setting that is not in the table.
    pub fn resolve(table: &[Setting], layers: &Layers<'_>) -> Result<Self, SettingsError> {
        let file = read_file(table, layers)?;
        Ok(Self(table.iter().map(|setting| pick(setting, layers, &file)).collect()))
    }

    /// What flags and environment alone say, by which the file is found.
    pub fn typed(table: &[Setting], layers: &Layers<'_>) -> Self {
        Self(table.iter().map(|setting| pick(setting, layers, &Typed::new())).collect())
    }

    /// Shows a path that holds because nobody set another, where that is found out rather than written down.
    pub fn show_default(&mut self, name: &'static str, path: &Path) {
        let unset = |shown: &&mut Shown| shown.name == name && shown.origin == Origin::Default;
        if let Some(shown) = self.0.iter_mut().find(unset) {
            shown.value = path.display().to_string();
        }
    }

    /// Every setting as it stands, in the table's order.
    pub fn shown(&self) -> &[Shown] {
        &self.0
    }

    /// Where the setting's value came from.
    pub fn origin(&self, name: &'static str) -> Origin {
        self.find(name).origin
    }

    /// The setting's value.
    ///
    /// # Errors
    /// What `parse` says, with the setting's name and origin.
    pub fn parse<T, E: fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SettingsError> {
        let Shown { value, origin, .. } = self.find(name);
        parse(value).map_err(|error| SettingsError::Value {
            name,
            origin: *origin,
            message: error.to_string(),
        })
    }

    /// The setting's value, if it has one.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn optional<T, E: fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingsError> {
        if self.find(name).value.is_empty() { Ok(None) } else { self.parse(name, parse).map(Some) }
    }

    /// The setting's values.
    pub fn list(&self, name: &'static str) -> Vec<String> {
        let parts = self.find(name).value.split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect()
    }

    fn find(&self, name: &'static str) -> &Shown {
        self.0.iter().find(|shown| shown.name == name).expect("every setting that is read is in the table")
    }
}

/// Reads a switch.
///
/// # Errors
/// When it is neither true nor false.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Reads an address to listen at.
///
/// # Errors
/// When it is not an IP address and port.
pub fn listen_address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address and port, like 127.0.0.1:7700 or [::]:0"))
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads a log format.
///
/// # Errors
/// When it is neither `text` nor `json`.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

/// The file's own values; a file that was asked for must be there.
fn read_file(table: &[Setting], layers: &Layers<'_>) -> Result<Typed, SettingsError> {
    let path = &layers.file;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !layers.file_asked => String::new(),
        Err(error) => return Err(SettingsError::Read { path: path.clone(), error }),
    };
    let bad = |message: String| SettingsError::File { path: path.clone(), message };
    let parsed: toml::Table = text.parse().map_err(|error: toml::de::Error| bad(error.to_string()))?;
    let mut values = Typed::new();
    for (key, value) in parsed {
        let setting = table.iter().find(|setting| setting.name == key);
        let setting =
            setting.ok_or_else(|| bad(format!("unknown setting {key:?}; `config show` lists them")))?;
        if setting.kind == Kind::Outside {
            return Err(bad(format!("{key} can't be set in the file itself")));
        }
        let text = match (value, setting.kind) {
            (toml::Value::Array(items), Kind::List) => {
                let items: Option<Vec<String>> = items.into_iter().map(single).collect();
                items.map(|items| items.join(","))
            }
            (value, _) => single(value),
        };
        let text = text.ok_or_else(|| bad(format!("{key}: not a {} here", kind_name(setting.kind))))?;
        values.insert(setting.name, text);
    }
    Ok(values)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => "single value",
        Kind::Path | Kind::Outside => "path",
        Kind::List => "list of single values",
    }
}

fn single(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

fn pick(setting: &Setting, layers: &Layers<'_>, file: &Typed) -> Shown {
    let beside_file = layers.file.parent().unwrap_or(&layers.directory);
    let flag = layers.flags.get(setting.name).map(|value| (value.clone(), Origin::Flag, &*layers.directory));
    let from_env = || (layers.env)(setting.env).filter(|value| !value.is_empty());
    let env = || from_env().map(|value| (value, Origin::Environment, &*layers.directory));
    let from_file = || file.get(setting.name).map(|value| (value.clone(), Origin::File, beside_file));
    let (value, origin) = match flag.or_else(env).or_else(from_file) {
        Some((value, origin, from))
            if matches!(setting.kind, Kind::Path | Kind::Outside) && !value.is_empty() =>
        {
            (from.join(value).to_string_lossy().into_owned(), origin)
        }
        Some((value, origin, _)) => (value, origin),
        None => (setting.default.to_owned(), Origin::Default),
    };
    Shown { name: setting.name, value, origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Setting] = &[
        Setting::plain("listen", "T_LISTEN", "127.0.0.1:1"),
        Setting::plain("log", "T_LOG", "info"),
        Setting::plain("metrics", "T_METRICS", ""),
        Setting::path("ca", "T_CA"),
        Setting::list("names", "T_NAMES"),
        Setting::outside("config", "T_CONFIG"),
    ];

    fn resolve(
        file: &str,
        env: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Result<Settings, SettingsError> {
        let dir = std::env::temp_dir().join(format!("settings-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).expect("a directory");
        let path = dir.join("config.toml");
        std::fs::write(&path, file).expect("written");
        let read =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let settings = Settings::resolve(
            TABLE,
            &Layers {
                flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
                env: &read,
                file: path,
                file_asked: true,
                directory: "/there".into(),
            },
        );
        std::fs::remove_dir_all(&dir).expect("removed");
        settings
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let settings = resolve(
            "listen = '1'\nmetrics = '1'\nlog = 'warn'\nnames = ['a', 'b']",
            &[("T_LISTEN", "2"), ("T_METRICS", "2"), ("T_LOG", "")],
            &[("listen", "3")],
        )
        .expect("good settings");
        let seen: Vec<_> = settings.shown().iter().map(|s| (s.name, s.value.as_str(), s.origin)).collect();
        assert_eq!(
            seen,
            [
                ("listen", "3", Origin::Flag),
                ("log", "warn", Origin::File),
                ("metrics", "2", Origin::Environment),
                ("ca", "", Origin::Default),
                ("names", "a,b", Origin::File),
                ("config", "", Origin::Default),
            ]
        );
        assert_eq!(settings.list("names"), ["a", "b"]);
    }

    #[test]
    fn paths_are_meant_from_where_they_are_written() {
        let typed = resolve("", &[("T_CA", "x/ca.pem")], &[]).expect("good settings");
        assert_eq!(typed.shown()[3].value, "/there/x/ca.pem");
        let filed = resolve("ca = 'ca.pem'", &[], &[]).expect("good settings");
        assert!(filed.shown()[3].value.ends_with("/ca.pem") && !filed.shown()[3].value.starts_with("/there"));
    }

    #[test]
    fn a_default_that_is_found_out_is_shown_where_nothing_is_set() {
        let mut settings = resolve("ca = 'mine.pem'", &[], &[]).expect("good settings");
        settings.show_default("ca", Path::new("/default"));
        settings.show_default("config", Path::new("/default"));
        assert!(settings.shown()[3].value.ends_with("/mine.pem"));
        let config = &settings.shown()[5];
        assert_eq!((config.value.as_str(), config.origin), ("/default", Origin::Default));
    }

    #[test]
    fn bad_files_and_values_are_named() {
        for (file, part) in [
            ("listen = ", "config.toml"),
            ("colour = 'red'", "colour"),
            ("listen = [1]", "listen"),
            ("config = 'x'", "config can't be set"),
        ] {
            let error = resolve(file, &[], &[]).expect_err(file).to_string();
            assert!(error.contains(part), "{file}: {error}");
        }
        let settings = resolve("listen = 'here'", &[], &[]).expect("text is text");
        let error = settings.parse("listen", listen_address).expect_err("no address").to_string();
        assert!(error.contains("listen") && error.contains("file") && error.contains("here"), "{error}");
        assert!(settings.optional("metrics", listen_address).is_ok_and(|none| none.is_none()));
    }
}
