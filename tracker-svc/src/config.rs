//! The tracker's settings: one table, one documented struct, working defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use etcetera::BaseStrategy as _;
use proto::settings::{LogFormat, Setting, Settings, SettingsError, boolean, listen_address, log_format};

use crate::ca::OwnCertificate;

/// Every setting. All but `config` may stand in the configuration file; the data directory, too, where another file is
/// named than the one in it.
pub const SETTINGS: &[Setting] = &[
    Setting::path("data_dir", "TRACKER_DATA_DIR"),
    Setting::outside("config", "TRACKER_CONFIG"),
    Setting::plain("listen", "TRACKER_LISTEN", "127.0.0.1:7700"),
    Setting::list("tls_name", "TRACKER_TLS_NAME"),
    Setting::path("tls_cert", "TRACKER_TLS_CERT"),
    Setting::path("tls_key", "TRACKER_TLS_KEY"),
    Setting::path("ca_out", "TRACKER_CA_OUT"),
    Setting::plain("plaintext", "TRACKER_PLAINTEXT", "false"),
    Setting::plain("allow_insecure", "TRACKER_ALLOW_INSECURE", "false"),
    Setting::plain("metrics", "TRACKER_METRICS", ""),
    Setting::plain("reflection", "TRACKER_REFLECTION", "true"),
    Setting::plain("ticket_ttl", "TRACKER_TICKET_TTL", "30m"),
    Setting::plain("limit_local_accounts", "TRACKER_LIMIT_LOCAL_ACCOUNTS", "false"),
    Setting::plain("log", "TRACKER_LOG", "info"),
    Setting::plain("log_format", "TRACKER_LOG_FORMAT", "text"),
];

/// The configuration file's name in the data directory.
pub const FILE: &str = "config.toml";

/// Shortest and longest life of a ticket.
const TICKET_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 3_600);

/// What a tracker serves with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where it keeps database, authority and keys. Absolute.
    pub data_dir: PathBuf,
    /// Its own certificate.
    pub certificate: OwnCertificate,
    /// A second place for the authority's certificate.
    pub ca_out: Option<PathBuf>,
    /// Serve without TLS.
    pub plaintext: bool,
    /// Without TLS to other machines too.
    pub allow_insecure: bool,
    /// Where Prometheus metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Serve gRPC reflection.
    pub reflection: bool,
    /// How long a ticket is good: also how long a peer that is cut off from the tracker may go on serving a member
    /// who was removed. 1 minute to 24 hours.
    pub ticket_ttl: Duration,
    /// Count accounts made from loopback addresses for the hourly limit too.
    pub limit_local_accounts: bool,
    /// Which logs are written: a `tracing` filter.
    pub log: String,
    /// How.
    pub log_format: LogFormat,
}

impl Config {
    /// Makes values of what stands.
    ///
    /// # Errors
    /// The first setting that can't be used, alone or beside another.
    pub fn new(data_dir: PathBuf, settings: &Settings) -> Result<Self, SettingsError> {
        let config = Self {
            listen: settings.parse("listen", listen_address)?,
            certificate: certificate(settings)?,
            ca_out: settings.optional("ca_out", str::parse::<PathBuf>)?,
            plaintext: settings.parse("plaintext", boolean)?,
            allow_insecure: settings.parse("allow_insecure", boolean)?,
            metrics: settings.optional("metrics", listen_address)?,
            reflection: settings.parse("reflection", boolean)?,
            ticket_ttl: settings.parse("ticket_ttl", ticket_ttl)?,
            limit_local_accounts: settings.parse("limit_local_accounts", boolean)?,
            log: settings.parse("log", log_filter)?,
            log_format: settings.parse("log_format", log_format)?,
            data_dir,
        };
        if config.plaintext && !config.allow_insecure && !config.listen.ip().is_loopback() {
            let why = "without TLS only a loopback address is served, unless --allow-insecure says that all may read";
            return settings.parse("plaintext", |_| Err(why));
        }
        Ok(config)
    }
}

/// The data directory where none is given: the user's directory for state.
///
/// # Errors
/// When the user has no home directory.
pub fn default_data_dir() -> Result<PathBuf, etcetera::HomeDirError> {
    let base = etcetera::base_strategy::Xdg::new()?;
    Ok(base.state_dir().unwrap_or_else(|| base.data_dir()).join("mini-torrent/tracker"))
}

fn certificate(settings: &Settings) -> Result<OwnCertificate, SettingsError> {
    let chain = settings.optional("tls_cert", str::parse::<PathBuf>)?;
    let key = settings.optional("tls_key", str::parse::<PathBuf>)?;
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(OwnCertificate::Files { chain, key }),
        (None, None) => Ok(OwnCertificate::Issued(settings.list("tls_name"))),
        (Some(_), None) => settings.parse("tls_key", |_| Err("a certificate needs its key too")),
        (None, Some(_)) => settings.parse("tls_cert", |_| Err("a key needs its certificate too")),
    }
}

fn ticket_ttl(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time from 1m to 24h, like 30m");
    let span: jiff::Span = text.parse().map_err(|_| bad())?;
    let ttl = Duration::try_from(span).map_err(|_| bad())?;
    if TICKET_TTL.contains(&ttl) { Ok(ttl) } else { Err(bad()) }
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proto::settings::{Layers, Typed};

    use super::*;

    fn config(flags: &[(&'static str, &str)]) -> Result<Config, SettingsError> {
        let layers = Layers {
            flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Typed>(),
            env: &|_| None,
            file: "/nonexistent/config.toml".into(),
            file_asked: false,
            directory: "/there".into(),
        };
        Config::new("/data".into(), &Settings::resolve(SETTINGS, &layers)?)
    }

    #[test]
    fn the_defaults_work() {
        let config = config(&[]).expect("good defaults");
        assert_eq!(config.listen.to_string(), "127.0.0.1:7700");
        assert_eq!(config.ticket_ttl, Duration::from_secs(1_800));
        assert_eq!(config.certificate, OwnCertificate::Issued(vec![]));
        assert!(!config.plaintext && config.reflection);
    }

    #[test]
    fn plaintext_is_for_loopback_unless_somebody_insists() {
        assert!(config(&[("plaintext", "true")]).is_ok());
        let open = [("plaintext", "true"), ("listen", "0.0.0.0:7700")];
        assert!(config(&open).is_err());
        assert!(config(&[open[0], open[1], ("allow_insecure", "true")]).is_ok());
    }

    #[test]
    fn bad_values_are_named() {
        for (name, value) in [
            ("listen", "here"),
            ("ticket_ttl", "59s"),
            ("ticket_ttl", "25h"),
            ("ticket_ttl", "-5m"),
            ("log_format", "xml"),
            ("plaintext", "perhaps"),
            ("metrics", "1"),
        ] {
            let error = config(&[(name, value)]).expect_err(value).to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
        assert!(config(&[("tls_cert", "c")]).is_err() && config(&[("tls_key", "k")]).is_err());
        let own = config(&[("tls_cert", "c"), ("tls_key", "k")]).expect("a pair").certificate;
        assert_eq!(own, OwnCertificate::Files { chain: "/there/c".into(), key: "/there/k".into() });
    }
}
