//! The tracker's settings: one table, one documented struct, working defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use etcetera::BaseStrategy as _;
use program::settings::{LogFormat, Setting, Settings, SettingsError, boolean, listen_address, log_format};
use proto::domain::{Username, names::NameError, size};

use crate::{
    ca::OwnCertificate,
    domain::{
        invite::Registration,
        operator::{Allowance, GroupCreators, ListingQuotas},
    },
    store::postgres::PostgresOptions,
};

/// All settings. The configuration file may contain all of them except `config`. It may contain the data
/// directory only if it is not the file in the data directory.
pub const SETTINGS: &[Setting] = &[
    Setting::path("data_dir", "TRACKER_DATA_DIR"),
    Setting::outside("config", "TRACKER_CONFIG"),
    Setting::plain("database", "TRACKER_DATABASE", ""),
    Setting::path("database_password_file", "TRACKER_DATABASE_PASSWORD_FILE"),
    Setting::path("cluster_key", "TRACKER_CLUSTER_KEY"),
    Setting::plain("listen", "TRACKER_LISTEN", "127.0.0.1:7700"),
    Setting::list("tls_name", "TRACKER_TLS_NAME"),
    Setting::path("tls_cert", "TRACKER_TLS_CERT"),
    Setting::path("tls_key", "TRACKER_TLS_KEY"),
    Setting::path("ca_out", "TRACKER_CA_OUT"),
    Setting::plain("plaintext", "TRACKER_PLAINTEXT", "false"),
    Setting::plain("allow_insecure", "TRACKER_ALLOW_INSECURE", "false"),
    Setting::plain("metrics", "TRACKER_METRICS", ""),
    Setting::plain("swarm", "TRACKER_SWARM", ""),
    Setting::path("swarm_password_file", "TRACKER_SWARM_PASSWORD_FILE"),
    Setting::plain("reflection", "TRACKER_REFLECTION", "true"),
    Setting::plain("ticket_ttl", "TRACKER_TICKET_TTL", "30m"),
    Setting::plain("registration", "TRACKER_REGISTRATION", "open"),
    Setting::list("group_creator", "TRACKER_GROUP_CREATOR"),
    Setting::plain("max_group_bytes", "TRACKER_MAX_GROUP_BYTES", "0"),
    Setting::plain("max_group_files", "TRACKER_MAX_GROUP_FILES", "0"),
    Setting::plain("max_user_bytes", "TRACKER_MAX_USER_BYTES", "0"),
    Setting::plain("max_user_files", "TRACKER_MAX_USER_FILES", "0"),
    Setting::plain("limit_local_accounts", "TRACKER_LIMIT_LOCAL_ACCOUNTS", "false"),
    Setting::plain("log", "TRACKER_LOG", "info"),
    Setting::plain("log_format", "TRACKER_LOG_FORMAT", "text"),
];

/// The configuration file's name in the data directory.
pub const FILE: &str = "config.toml";

/// The allowed lifetimes of a ticket.
const TICKET_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 3_600);

/// The settings of a tracker.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen at; port 0 picks a free port.
    pub listen: SocketAddr,
    /// The directory of database, authority and keys. Absolute.
    pub data_dir: PathBuf,
    /// The database that trackers share. `None` for a file in the data directory.
    pub database: Option<PostgresOptions>,
    /// The file of the key that encrypts the secrets in a shared database.
    pub cluster_key: Option<PathBuf>,
    /// The source of the tracker's own certificate.
    pub certificate: OwnCertificate,
    /// A second path for the authority's certificate.
    pub ca_out: Option<PathBuf>,
    /// Serve without TLS.
    pub plaintext: bool,
    /// Serve without TLS to other machines too.
    pub allow_insecure: bool,
    /// The address that serves Prometheus metrics.
    pub metrics: Option<SocketAddr>,
    /// The Redis server, or cluster, by which trackers of one network share their swarms.
    pub swarm: Option<String>,
    /// The file with the password of that server.
    pub swarm_password_file: Option<PathBuf>,
    /// Serve gRPC reflection.
    pub reflection: bool,
    /// The lifetime of a ticket, 1 minute to 24 hours. For this long, a peer that is cut off from the tracker
    /// may also go on serving a member that was removed.
    pub ticket_ttl: Duration,
    /// Who may make an account.
    pub registration: Registration,
    /// Who may make groups.
    pub group_creators: GroupCreators,
    /// How much a group and a user may list.
    pub quotas: ListingQuotas,
    /// Whether accounts made from loopback addresses count for the hourly limit too.
    pub limit_local_accounts: bool,
    /// A `tracing` filter that selects the logs to write.
    pub log: String,
    /// The format of the logs.
    pub log_format: LogFormat,
}

impl Config {
    /// Parses the resolved settings.
    ///
    /// # Errors
    /// Fails at the first setting that is invalid, alone or in combination.
    pub fn new(data_dir: PathBuf, settings: &Settings) -> Result<Self, SettingsError> {
        let password = settings.optional("database_password_file", str::parse::<PathBuf>)?;
        let config = Self {
            database: settings
                .optional("database", |address| PostgresOptions::new(address, password.as_deref()))?,
            cluster_key: settings.optional("cluster_key", str::parse::<PathBuf>)?,
            listen: settings.parse("listen", listen_address)?,
            certificate: certificate(settings)?,
            ca_out: settings.optional("ca_out", str::parse::<PathBuf>)?,
            plaintext: settings.parse("plaintext", boolean)?,
            allow_insecure: settings.parse("allow_insecure", boolean)?,
            metrics: settings.optional("metrics", listen_address)?,
            swarm: settings.optional("swarm", swarm)?,
            swarm_password_file: settings.optional("swarm_password_file", str::parse::<PathBuf>)?,
            reflection: settings.parse("reflection", boolean)?,
            ticket_ttl: settings.parse("ticket_ttl", ticket_ttl)?,
            registration: settings.parse("registration", str::parse::<Registration>)?,
            group_creators: GroupCreators::new(creators(settings)?),
            quotas: ListingQuotas {
                group: allowance(settings, "max_group_bytes", "max_group_files")?,
                user: allowance(settings, "max_user_bytes", "max_user_files")?,
            },
            limit_local_accounts: settings.parse("limit_local_accounts", boolean)?,
            log: settings.parse("log", log_filter)?,
            log_format: settings.parse("log_format", log_format)?,
            data_dir,
        };
        if config.plaintext && !config.allow_insecure && !config.listen.ip().is_loopback() {
            let why = "without TLS the tracker serves only on a loopback address; --allow-insecure permits other addresses, and makes passwords and tokens readable on the network";
            return settings.parse("plaintext", |_| Err(why));
        }
        Ok(config)
    }
}

/// The default data directory: the user's directory for state.
///
/// # Errors
/// Fails if the user has no home directory.
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
        (Some(_), None) => settings.parse("tls_key", |_| Err("--tls-cert needs --tls-key")),
        (None, Some(_)) => settings.parse("tls_cert", |_| Err("--tls-key needs --tls-cert")),
    }
}

fn creators(settings: &Settings) -> Result<Vec<Username>, SettingsError> {
    let names = settings.list("group_creator");
    settings
        .parse("group_creator", |_| names.iter().map(|name| name.parse()).collect::<Result<_, NameError>>())
}

/// Reads how much may be listed. 0 stands for no limit.
fn allowance(
    settings: &Settings,
    bytes: &'static str,
    files: &'static str,
) -> Result<Allowance, SettingsError> {
    let read_bytes =
        |text: &str| size::parse(text).ok_or("not a size; write 10GiB or 500M, or 0 for no limit");
    let read_files =
        |text: &str| text.parse::<u64>().map_err(|_| "not a number of files; write 1000, or 0 for no limit");
    let limit = |number: u64| (number > 0).then_some(number);
    Ok(Allowance {
        bytes: limit(settings.parse(bytes, read_bytes)?),
        files: limit(settings.parse(files, read_files)?),
    })
}

/// Reads the address of a Redis server. A password in it would be shown with the settings.
fn swarm(text: &str) -> Result<String, String> {
    let schemes = ["redis", "rediss", "unix", "redis-cluster", "rediss-cluster"];
    if !text.split_once("://").is_some_and(|(scheme, _)| schemes.contains(&scheme)) {
        return Err(format!(
            "{text:?} is not an address like redis://HOST:6379, rediss://HOST:6379, unix://PATH or redis-cluster://HOST:6379,HOST:6379"
        ));
    }
    let authority = text.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    if authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':')) {
        return Err(
            "the address contains a password; put it into a file, and name that with --swarm-password-file"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

fn ticket_ttl(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration from 1m to 24h, such as 30m");
    let span: jiff::Span = text.parse().map_err(|_| bad())?;
    let ttl = Duration::try_from(span).map_err(|_| bad())?;
    if TICKET_TTL.contains(&ttl) { Ok(ttl) } else { Err(bad()) }
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use program::settings::{Layers, Typed};

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
    fn a_swarm_store_is_an_address_without_a_password() {
        for good in
            ["redis://h:6379", "rediss://user@h/1", "unix:///run/redis.sock", "redis-cluster://a,b:7000"]
        {
            assert_eq!(config(&[("swarm", good)]).expect("good").swarm.as_deref(), Some(good));
        }
        for (bad, part) in [("h:6379", "redis://HOST"), ("redis://:secret@h", "--swarm-password-file")] {
            let error = config(&[("swarm", bad)]).expect_err(bad).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn plaintext_is_for_loopback_unless_somebody_insists() {
        assert!(config(&[("plaintext", "true")]).is_ok());
        let open = [("plaintext", "true"), ("listen", "0.0.0.0:7700")];
        assert!(config(&open).is_err());
        assert!(config(&[open[0], open[1], ("allow_insecure", "true")]).is_ok());
    }

    #[test]
    fn quotas_are_sizes_and_numbers_and_zero_is_no_limit() {
        let none = config(&[]).expect("good defaults");
        assert_eq!((none.quotas, none.group_creators), Default::default());
        let flags = [
            ("max_group_bytes", "10GiB"),
            ("max_group_files", "3"),
            ("max_user_bytes", "0"),
            ("max_user_files", "5"),
            ("group_creator", "ann, bob"),
        ];
        let some = config(&flags).expect("good");
        let group = Allowance { bytes: Some(10 << 30), files: Some(3) };
        let quotas = ListingQuotas { group, user: Allowance { bytes: None, files: Some(5) } };
        assert_eq!(some.quotas, quotas);
        let users = ["ann", "bob"].map(|name| name.parse().expect("a user"));
        assert_eq!(some.group_creators, GroupCreators::new(users));
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
            ("registration", "sometimes"),
            ("group_creator", "ann,b/b"),
            ("max_group_bytes", "much"),
            ("max_user_files", "-1"),
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
