//! The peer's settings: flag, then environment, then configuration file, then default ([`proto::settings`]).
//!
//! As typed (text, per layer) → resolved ([`Config`]). One table, [`SETTINGS`], names every setting; reading it is
//! reading the manual of the configuration file.

use std::{io, net::SocketAddr, path::PathBuf, str::FromStr as _, time::Duration};

use proto::{
    settings::{self, LogFormat, Origin, Setting, Settings, SettingsError, Shown, Typed},
    transport::AuthorityFingerprint,
};

use crate::{home::Home, units};

/// Every setting that may stand in the configuration file.
pub const SETTINGS: &[Setting] = &[
    Setting::plain("tracker", "PEER_TRACKER", "https://127.0.0.1:7700"),
    Setting::path("ca", "PEER_CA"),
    Setting::plain("ca_sha256", "PEER_CA_SHA256", ""),
    Setting::plain("listen", "PEER_LISTEN", "0.0.0.0:0"),
    Setting::plain("advertise", "PEER_ADVERTISE", ""),
    Setting::plain("upload_limit", "PEER_UPLOAD_LIMIT", "0"),
    Setting::plain("download_limit", "PEER_DOWNLOAD_LIMIT", "0"),
    Setting::plain("upload_slots", "PEER_UPLOAD_SLOTS", "2"),
    Setting::plain("picker_seed", "PEER_PICKER_SEED", ""),
    Setting::plain("metrics", "PEER_METRICS", ""),
    Setting::plain("reflection", "PEER_REFLECTION", "true"),
    Setting::plain("log", "PEER_LOG", "info"),
    Setting::plain("log_format", "PEER_LOG_FORMAT", "text"),
    Setting::plain("json", "PEER_JSON", "false"),
    Setting::plain("quiet", "PEER_QUIET", "false"),
    Setting::plain("no_autostart", "PEER_NO_AUTOSTART", "false"),
    Setting::plain("timeout", "PEER_TIMEOUT", ""),
];

/// Settings that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One of them.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no home.
    #[error("no home directory: give --home DIR or set PEER_HOME ({0})")]
    Home(io::Error),
}

/// The settings, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the peer keeps its state.
    pub home: Home,
    /// The home's directory, if one was given. Absolute.
    pub home_given: Option<PathBuf>,
    /// The configuration file, if one was given. Absolute.
    pub config_file_given: Option<PathBuf>,
    /// The tracker's URL.
    pub tracker: String,
    /// The tracker was named by flag or environment, so a daemon that works with another one is not meant.
    pub tracker_insisted: bool,
    /// The CA's certificate file.
    pub ca: Option<PathBuf>,
    /// The fingerprint of the CA's certificate.
    pub ca_sha256: Option<AuthorityFingerprint>,
    /// Where peers reach this one.
    pub listen: SocketAddr,
    /// What the tracker hands out as this peer's address: a host, or a host and port.
    pub advertise: Option<String>,
    /// Bytes a second, 0 for no limit.
    pub upload_limit: u64,
    /// Bytes a second, 0 for no limit.
    pub download_limit: u64,
    /// Uploads at a time.
    pub upload_slots: u32,
    /// Makes what the picker leaves to chance repeatable.
    pub picker_seed: Option<u64>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Serve gRPC reflection to peers.
    pub reflection: bool,
    /// Which logs are written: a `tracing` filter.
    pub log: String,
    /// How.
    pub log_format: LogFormat,
    /// Print JSON.
    pub json: bool,
    /// Print nothing but results and errors.
    pub quiet: bool,
    /// Never start a daemon.
    pub no_autostart: bool,
    /// How long a verb may take.
    pub timeout: Option<Duration>,
    /// Every setting as it stands.
    pub shown: Vec<Shown>,
}

/// What configuration is resolved from. The environment is an argument, so that tests need not change their own.
pub struct Layers<'a> {
    /// `--home` or `PEER_HOME`.
    pub home: Option<PathBuf>,
    /// `--config` or `PEER_CONFIG`; without, the home's own.
    pub config_file: Option<PathBuf>,
    /// From the command line.
    pub flags: Typed,
    /// Reads an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths in flags and environment start from.
    pub directory: PathBuf,
}

impl Config {
    /// Resolves every setting.
    ///
    /// # Errors
    /// The first one that can't be used.
    pub fn resolve(layers: Layers<'_>) -> Result<Self, ConfigError> {
        let absolute = |path: PathBuf| layers.directory.join(path).components().collect::<PathBuf>();
        let home_given = layers.home.map(absolute);
        let config_file_given = layers.config_file.map(absolute);
        let home = Home::resolve(home_given.clone()).map_err(ConfigError::Home)?;
        let file_asked = config_file_given.is_some();
        let file = config_file_given.clone().unwrap_or_else(|| home.config_file().to_owned());
        let layers = settings::Layers {
            flags: layers.flags,
            env: layers.env,
            file,
            file_asked,
            directory: layers.directory,
        };
        let values = Settings::resolve(SETTINGS, &layers)?;
        let insisted = matches!(values.origin("tracker"), Origin::Flag | Origin::Environment);
        Ok(Self {
            home,
            home_given,
            config_file_given,
            tracker: values.parse("tracker", tracker_url)?,
            tracker_insisted: insisted,
            ca: values.optional("ca", PathBuf::from_str)?,
            ca_sha256: values.optional("ca_sha256", AuthorityFingerprint::from_str)?,
            listen: values.parse("listen", settings::listen_address)?,
            advertise: values.optional("advertise", advertise)?,
            upload_limit: values.parse("upload_limit", units::parse_rate)?,
            download_limit: values.parse("download_limit", units::parse_rate)?,
            upload_slots: values.parse("upload_slots", slots)?,
            picker_seed: values.optional("picker_seed", u64::from_str)?,
            metrics: values.optional("metrics", settings::listen_address)?,
            reflection: values.parse("reflection", settings::boolean)?,
            log: values.parse("log", log_filter)?,
            log_format: values.parse("log_format", settings::log_format)?,
            json: values.parse("json", settings::boolean)?,
            quiet: values.parse("quiet", settings::boolean)?,
            no_autostart: values.parse("no_autostart", settings::boolean)?,
            timeout: values.optional("timeout", units::parse_seconds)?,
            shown: values.shown().to_vec(),
        })
    }
}

/// A tracker's URL, spelled one way: scheme, host and port, no slash at the end.
///
/// # Errors
/// When it is not one, or would send passwords in the clear to another machine.
pub fn tracker_url(text: &str) -> Result<String, String> {
    let form = "write a tracker as https://HOST:PORT";
    let uri: http::Uri = text.parse().map_err(|error| format!("{text:?}: {error}; {form}"))?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(format!("{text:?} is not a URL; {form}"));
    };
    if uri.path() != "/" || uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@'))
    {
        return Err(format!("{text:?} holds more than a host and a port; {form}"));
    }
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match scheme {
        "https" => {}
        "http" if local => {}
        "http" => {
            return Err(format!("{text:?}: http:// is for a tracker on this machine only; use https://"));
        }
        _ => return Err(format!("{text:?}: unknown scheme {scheme:?}; {form}")),
    }
    let port = uri.port_u16().unwrap_or(7700);
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

fn advertise(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not a host, or a host and port, like peer1.example.org:7801");
    let bare_ip = text.parse::<std::net::IpAddr>().is_ok();
    let authority: Option<http::uri::Authority> =
        if bare_ip { None } else { Some(text.parse().map_err(|_| bad())?) };
    if authority.is_some_and(|a| a.as_str().contains('@') || a.port_u16() == Some(0)) {
        Err(bad())
    } else {
        Ok(text.to_owned())
    }
}

fn slots(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(slots @ 1..=64) => Ok(slots),
        _ => Err(format!("{text:?} is not a number of upload slots: 1 to 64")),
    }
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers<'a>(home: &std::path::Path, env: &'a dyn Fn(&str) -> Option<String>) -> Layers<'a> {
        Layers {
            home: Some(home.to_owned()),
            config_file: None,
            flags: Typed::new(),
            env,
            directory: "/there".into(),
        }
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(
            home.path().join("config.toml"),
            "listen = '127.0.0.1:1'\nmetrics = '127.0.0.1:1'\nlog = 'warn'\nca = 'ca.pem'\nupload_limit = 7",
        )
        .expect("written");
        let env = |name: &str| match name {
            "PEER_LISTEN" | "PEER_METRICS" => Some("127.0.0.1:2".to_owned()),
            "PEER_TRACKER" => Some(String::new()),
            _ => None,
        };
        let mut layers = layers(home.path(), &env);
        layers.flags.insert("listen", "127.0.0.1:3".into());
        let config = Config::resolve(layers).expect("good settings");
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.metrics.map(|address| address.port()), Some(2));
        assert_eq!(config.log, "warn");
        assert_eq!(config.upload_limit, 7);
        assert_eq!(config.ca, Some(home.path().join("ca.pem")), "from where the file is");
        assert_eq!(config.tracker, "https://127.0.0.1:7700");
        let origin = |name| config.shown.iter().find(|shown| shown.name == name).map(|shown| shown.origin);
        assert_eq!(origin("listen"), Some(Origin::Flag));
        assert_eq!(origin("metrics"), Some(Origin::Environment));
        assert_eq!(origin("log"), Some(Origin::File));
        assert_eq!(origin("tracker"), Some(Origin::Default), "an empty variable is no value");
        assert!(!config.tracker_insisted);
    }

    #[test]
    fn paths_are_meant_from_where_they_are_written() {
        let home = tempfile::tempdir().expect("a directory");
        let env = |name: &str| (name == "PEER_CA").then(|| "data/ca.pem".to_owned());
        let config = Config::resolve(layers(home.path(), &env)).expect("good settings");
        assert_eq!(config.ca, Some("/there/data/ca.pem".into()));
    }

    #[test]
    fn bad_files_and_values_are_named() {
        let none = |_: &str| None;
        for (text, part) in [
            ("listen = ", "config.toml"),
            ("colour = 'red'", "colour"),
            ("listen = [1]", "listen"),
            ("listen = 'here'", "listen"),
            ("upload_limit = -5", "upload_limit"),
            ("upload_slots = 0", "upload_slots"),
            ("picker_seed = 'x'", "picker_seed"),
            ("timeout = 'soon'", "timeout"),
            ("json = 'perhaps'", "json"),
            ("log_format = 'xml'", "log_format"),
            ("ca_sha256 = 'ab'", "ca_sha256"),
            ("advertise = 'a b'", "advertise"),
        ] {
            let home = tempfile::tempdir().expect("a directory");
            std::fs::write(home.path().join("config.toml"), text).expect("written");
            let error = Config::resolve(layers(home.path(), &none)).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let home = tempfile::tempdir().expect("a directory");
        let asked = Layers { config_file: Some("absent.toml".into()), ..layers(home.path(), &none) };
        assert!(matches!(Config::resolve(asked), Err(ConfigError::Settings(SettingsError::Read { .. }))));
    }

    #[test]
    fn trackers_are_spelled_one_way() {
        for (typed, url) in [
            ("https://127.0.0.1:7700", "https://127.0.0.1:7700"),
            ("https://Tracker:7700/", "https://tracker:7700"),
            ("https://tracker", "https://tracker:7700"),
            ("http://localhost:1", "http://localhost:1"),
            ("https://[::1]:2", "https://[::1]:2"),
        ] {
            assert_eq!(tracker_url(typed).as_deref(), Ok(url));
        }
        for typed in [
            "",
            "tracker",
            "tracker:7700",
            "ftp://t:1",
            "http://example.org:1",
            "https://t/x",
            "https://u:p@t:1",
        ] {
            assert!(tracker_url(typed).is_err(), "{typed}");
        }
    }
}
