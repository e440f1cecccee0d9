//! Settings, resolved in the same way by both programs: flag, then environment, then configuration file, then
//! default. Each value keeps its origin.
//!
//! A program lists its settings in one table ([`Setting`]). The input of each layer is text.
//! [`Settings::resolve`] picks the text with the highest priority. [`Settings::parse`] converts it to a
//! value; its error names the setting.
//!
//! No crate for settings is used. figment 0.10.19 knows which provider a value came from, but it could replace
//! only `read_file` and `pick` below, about 60 lines. The table, the display of origins and the parsing of each
//! value from text would stay. So would two rules: a relative path starts where it was written, and an empty
//! variable is no value. figment also guesses types: in the environment, `NAME=8080` is a number and does not
//! fit a text. It would add ten packages and a second version of `toml`.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

/// A setting: its name in the configuration file, its environment variable and its default. The flag's name
/// is the same with `-` for `_`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name in the configuration file.
    pub name: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// The value if nothing is set; empty for no value.
    pub default: &'static str,
    /// The kind of value.
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A single value.
    Plain,
    /// A path. A relative path starts at the place where it was written.
    Path,
    /// The path of the configuration file, which cannot be set in the file itself.
    Outside,
    /// Several values: an array in the file, separated by commas elsewhere.
    List,
    /// A program and its arguments: an array in the file, words in quotes elsewhere.
    Command,
}

impl Setting {
    /// A single value.
    pub const fn plain(name: &'static str, env: &'static str, default: &'static str) -> Self {
        Self { name, env, default, kind: Kind::Plain }
    }

    /// A path, without a default. A relative path starts at the place where it was written.
    pub const fn path(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::Path }
    }

    /// Same as [`Setting::path`], for the path of the configuration file, which cannot be set in the file
    /// itself.
    pub const fn outside(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::Outside }
    }

    /// Several values, without a default: an array in the file, separated by commas elsewhere.
    pub const fn list(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::List }
    }

    /// A program and its arguments, without a default: an array in the file; elsewhere words, which may be in single
    /// quotes. A name with a dot is in a table of the file.
    pub const fn command(name: &'static str, env: &'static str) -> Self {
        Self { name, env, default: "", kind: Kind::Command }
    }
}

/// The layer that a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File,
    /// No layer set it.
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

/// The reason why a setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
    /// The file is not TOML, or contains something that is not allowed.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A value is invalid.
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

/// A resolved value, for `config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The setting's name.
    pub name: &'static str,
    /// Its value as text; empty for none.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// The text of each setting, by name.
pub type Typed = BTreeMap<&'static str, String>;

/// The layers that settings are resolved from. The environment is an argument, so that tests need not change
/// their own.
pub struct Layers<'a> {
    /// Values from the command line.
    pub flags: Typed,
    /// Reads an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The configuration file. Absolute.
    pub file: PathBuf,
    /// Whether the user named the file. It must then exist.
    pub file_asked: bool,
    /// The directory that relative paths in flags and environment start from. Absolute.
    pub directory: PathBuf,
}

/// The resolved settings of a table.
#[derive(Clone, Debug)]
pub struct Settings(Vec<Shown>);

impl Settings {
    /// Picks the text with the highest priority for every setting of `table`.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is not TOML, or has a setting that is not in the table.
    pub fn resolve(table: &[Setting], layers: &Layers<'_>) -> Result<Self, SettingsError> {
        let file = read_file(table, layers)?;
        Ok(Self(table.iter().map(|setting| pick(setting, layers, &file)).collect()))
    }

    /// Resolves from flags and environment only, to find the configuration file.
    pub fn typed(table: &[Setting], layers: &Layers<'_>) -> Self {
        Self(table.iter().map(|setting| pick(setting, layers, &Typed::new())).collect())
    }

    /// Sets the displayed value of a path that no layer set and that is computed at run time.
    pub fn show_default(&mut self, name: &'static str, path: &Path) {
        let unset = |shown: &&mut Shown| shown.name == name && shown.origin == Origin::Default;
        if let Some(shown) = self.0.iter_mut().find(unset) {
            shown.value = path.display().to_string();
        }
    }

    /// Every resolved setting, in the table's order.
    pub fn shown(&self) -> &[Shown] {
        &self.0
    }

    /// The layer that the setting's value came from.
    pub fn origin(&self, name: &'static str) -> Origin {
        self.find(name).origin
    }

    /// Converts the setting's value.
    ///
    /// # Errors
    /// The error of `parse`, with the setting's name and origin.
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

    /// Converts the setting's value, if it has one.
    ///
    /// # Errors
    /// Same as [`Settings::parse`].
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

/// Reads a boolean.
///
/// # Errors
/// Fails if the text is neither true nor false.
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
/// Fails if the text is not an IP address and port.
pub fn listen_address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address and port, like 127.0.0.1:7700 or [::]:0"))
}

/// The format of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads a log format.
///
/// # Errors
/// Fails if the text is neither `text` nor `json`.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

/// Reads the values of the file. A file that the user named must exist.
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
    for (key, value) in parsed.into_iter().flat_map(spread) {
        let setting = table.iter().find(|setting| setting.name == key);
        let setting =
            setting.ok_or_else(|| bad(format!("unknown setting {key:?}; `config show` lists them")))?;
        if setting.kind == Kind::Outside {
            return Err(bad(format!("{key} can't be set in the configuration file")));
        }
        let text = match (value, setting.kind) {
            (toml::Value::Array(items), Kind::List) => {
                let items: Option<Vec<String>> = items.into_iter().map(single).collect();
                items.map(|items| items.join(","))
            }
            (toml::Value::Array(items), Kind::Command) => {
                let items: Option<Vec<String>> = items.into_iter().map(single).collect();
                items.map(|items| items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(" "))
            }
            (value, _) => single(value),
        };
        let text = text.ok_or_else(|| bad(format!("{key} is not a {} here", kind_name(setting.kind))))?;
        values.insert(setting.name, text);
    }
    Ok(values)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => "single value",
        Kind::Path | Kind::Outside => "path",
        Kind::List => "list of single values",
        Kind::Command => "program with its arguments",
    }
}

/// The settings of a table, with the table's name before a dot; or the setting itself.
fn spread((key, value): (String, toml::Value)) -> Vec<(String, toml::Value)> {
    match value {
        toml::Value::Table(table) => {
            table.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)).collect()
        }
        value => vec![(key, value)],
    }
}

/// A word of a command, in single quotes if it needs them.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
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
