//! The command line: parses the arguments and runs the command. [`operator`] and [`crate::run()`] do the
//! work, and [`manual`] has what the manual page says besides.

mod manual;
mod operator;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use program::{
    log::Escaping,
    settings::{Layers, LogFormat, Origin, Settings, SettingsError, Typed},
};
use proto::domain::visible::escape;

use crate::config::{self, Config, SETTINGS};

/// The Mini Torrent tracker: accounts, groups, manifests, and which peer has which piece. It never sees file bytes.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Directory of database, authority and keys; made at first start [env: TRACKER_DATA_DIR] [default: the user's state directory]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file [env: TRACKER_CONFIG] [default: DIR/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database that several trackers share: postgres://USER@HOST:PORT/DATABASE [env: TRACKER_DATABASE] [default: a file in DIR]
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// File with the password of the database's user [env: TRACKER_DATABASE_PASSWORD_FILE] [default: ~/.pgpass, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    database_password_file: Option<String>,
    /// Filter for the logs on standard error, such as `info` or `tracker_svc=debug,warn` [env: TRACKER_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Format of the logs: text or json [env: TRACKER_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    #[command(
        after_help = "Example: tracker-svc serve --listen [::]:7700 --data-dir tracker-data --tls-name files.example.org"
    )]
    Serve(Box<Serve>),
    /// Check whether a tracker is serving
    #[command(
        after_help = "Example: tracker-svc health --tracker https://127.0.0.1:7700 --ca tracker-data/ca.pem"
    )]
    Health {
        /// The tracker's URL
        #[arg(long, env = "TRACKER_URL", default_value = "https://127.0.0.1:7700", value_name = "URL")]
        tracker: String,
        /// The authority's certificate [default: DIR/ca.pem]
        #[arg(long, env = "TRACKER_CA", value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Write a consistent copy into a new file, also while serving
    #[command(after_help = "Example: tracker-svc backup --data-dir tracker-data tracker.backup")]
    Backup {
        /// The copy to make
        file: PathBuf,
    },
    /// Restore the data directory from a copy; the old content is kept next to it
    #[command(after_help = "Example: tracker-svc restore --data-dir tracker-data tracker.backup")]
    Restore {
        /// The copy to take
        file: PathBuf,
    },
    /// Take the tracker of a data directory over into an empty database that several trackers can share
    #[command(
        after_help = "Example: tracker-svc migrate --from tracker-data --to postgres://tracker@db/tracker --cluster-key cluster.key"
    )]
    Migrate {
        /// The data directory; no tracker may serve from it. It keeps what it has
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The database, as in `serve --database`
        #[arg(long, value_name = "URL")]
        to: String,
        /// As in `serve --cluster-key` [env: TRACKER_CLUSTER_KEY]
        #[arg(long, value_name = "FILE")]
        cluster_key: Option<String>,
    },
    /// Manage an account, also while serving
    #[command(subcommand)]
    User(User),
    /// Show the audit log
    #[command(after_help = "Example: tracker-svc audit --since 2h --json")]
    Audit {
        /// Start: a time like 2026-01-31T08:00:00Z, or an age like 2h or 7d
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show the settings
    #[command(subcommand)]
    Config(Show),
    /// Print a completion script
    #[command(
        after_help = "Example: tracker-svc completions bash > ~/.local/share/bash-completion/completions/tracker-svc"
    )]
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example: tracker-svc man > tracker-svc.1")]
    Man,
}

#[derive(Subcommand)]
enum User {
    /// Create an account; its password is the first line of standard input
    #[command(after_help = "Example: tracker-svc user create ann --data-dir tracker-data < ann.password")]
    Create {
        /// The account
        name: String,
    },
    /// Disable an account: its sessions and transfers end within 15 seconds
    #[command(after_help = "Example: tracker-svc user disable ann --data-dir tracker-data")]
    Disable {
        /// The account
        name: String,
    },
    /// Enable an account again
    #[command(after_help = "Example: tracker-svc user enable ann --data-dir tracker-data")]
    Enable {
        /// The account
        name: String,
    },
    /// Set an account's password from the first line of standard input
    #[command(
        after_help = "Example: tracker-svc user reset-password ann --data-dir tracker-data < new-password"
    )]
    ResetPassword {
        /// The account
        name: String,
    },
}

#[derive(Subcommand)]
enum Show {
    /// Show every setting, its value and its origin
    #[command(after_help = "Example: tracker-svc config show --data-dir tracker-data")]
    Show,
}

/// The flags of `serve`, as text, so that every layer is parsed in the same way ([`program::settings`]).
#[derive(Args)]
struct Serve {
    /// With --database: file with the key of all its trackers, 32 random bytes [env: TRACKER_CLUSTER_KEY]
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<String>,
    /// Where to listen; port 0 picks a free one [env: TRACKER_LISTEN] [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A further name or address for the certificate; may be repeated [env: TRACKER_TLS_NAME]
    #[arg(long, value_name = "HOST")]
    tls_name: Vec<String>,
    /// The operator's certificate chain, instead of one issued by the tracker's authority [env: TRACKER_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The key of the operator's certificate [env: TRACKER_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// A second path for the authority's certificate [env: TRACKER_CA_OUT]
    #[arg(long, value_name = "FILE")]
    ca_out: Option<String>,
    /// Serve without TLS, on a loopback address [env: TRACKER_PLAINTEXT]
    #[arg(long)]
    plaintext: bool,
    /// With --plaintext: on any address. Others on the network can read and change the traffic [env: TRACKER_ALLOW_INSECURE]
    #[arg(long)]
    allow_insecure: bool,
    /// Address to serve Prometheus metrics at [env: TRACKER_METRICS]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Redis server by which the trackers of one network share their swarms: redis://HOST:PORT, rediss://HOST:PORT
    /// or unix://PATH, or a Redis Cluster: redis-cluster://HOST:PORT,HOST:PORT [env: TRACKER_SWARM]
    #[arg(long, value_name = "URL")]
    swarm: Option<String>,
    /// File with the password of that server [env: TRACKER_SWARM_PASSWORD_FILE]
    #[arg(long, value_name = "FILE")]
    swarm_password_file: Option<String>,
    /// Serve gRPC reflection: true or false [env: TRACKER_REFLECTION] [default: true]
    #[arg(long, value_name = "BOOL")]
    reflection: Option<String>,
    /// Lifetime of a ticket, 1m to 24h [env: TRACKER_TICKET_TTL] [default: 30m]
    #[arg(long, value_name = "TIME")]
    ticket_ttl: Option<String>,
    /// Who may make an account: open (everybody), invite (by an invitation), closed (the operator) [env: TRACKER_REGISTRATION] [default: open]
    #[arg(long, value_name = "WHO")]
    registration: Option<String>,
    /// A user that may make groups, and nobody else who is not named; may be repeated [env: TRACKER_GROUP_CREATOR] [default: everybody]
    #[arg(long, value_name = "USER")]
    group_creator: Vec<String>,
    /// Bytes that may be listed in a group, such as 10GiB; 0 is no limit [env: TRACKER_MAX_GROUP_BYTES] [default: 0]
    #[arg(long, value_name = "SIZE")]
    max_group_bytes: Option<String>,
    /// Files that may be listed in a group; 0 is no limit but that of 10,000 [env: TRACKER_MAX_GROUP_FILES] [default: 0]
    #[arg(long, value_name = "N")]
    max_group_files: Option<String>,
    /// Bytes that a user may list, over all groups; 0 is no limit [env: TRACKER_MAX_USER_BYTES] [default: 0]
    #[arg(long, value_name = "SIZE")]
    max_user_bytes: Option<String>,
    /// Files that a user may list, over all groups; 0 is no limit [env: TRACKER_MAX_USER_FILES] [default: 0]
    #[arg(long, value_name = "N")]
    max_user_files: Option<String>,
    /// Count accounts made from loopback for the hourly limit too [env: TRACKER_LIMIT_LOCAL_ACCOUNTS]
    #[arg(long)]
    limit_local_accounts: bool,
}

impl Serve {
    fn typed(&self) -> Typed {
        let text = [
            ("cluster_key", &self.cluster_key),
            ("listen", &self.listen),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("ca_out", &self.ca_out),
            ("metrics", &self.metrics),
            ("swarm", &self.swarm),
            ("swarm_password_file", &self.swarm_password_file),
            ("reflection", &self.reflection),
            ("ticket_ttl", &self.ticket_ttl),
            ("registration", &self.registration),
            ("max_group_bytes", &self.max_group_bytes),
            ("max_group_files", &self.max_group_files),
            ("max_user_bytes", &self.max_user_bytes),
            ("max_user_files", &self.max_user_files),
        ];
        let switches = [
            ("plaintext", self.plaintext),
            ("allow_insecure", self.allow_insecure),
            ("limit_local_accounts", self.limit_local_accounts),
        ];
        let mut typed: Typed =
            text.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        typed.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".to_owned())));
        for (name, values) in [("tls_name", &self.tls_name), ("group_creator", &self.group_creator)] {
            if !values.is_empty() {
                typed.insert(name, values.join(","));
            }
        }
        typed
    }
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    ExitCode::from(run_from(std::env::args_os()))
}

/// Runs a command and returns the exit status. The program's name is the first argument. 0 means success, and
/// 1 means that the command failed. 2 means that the command line or a setting is invalid.
pub fn run_from(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            let unread = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
            return match (error.use_stderr(), printed) {
                (true, _) => 2,
                (false, Err(error)) if !unread(&error) => 1,
                (false, _) => 0,
            };
        }
    };
    match run(&cli) {
        Ok(()) => 0,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tracker-svc: {}", escape(&format!("{error:#}")));
            if error.is::<SettingsError>() { 2 } else { 1 }
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let mut page = Vec::new();
    match &cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "tracker-svc", &mut page);
        }
        Command::Man => program::man::page(Cli::command(), manual::EXTRA, &mut page)?,
        _ => return run_with_settings(cli),
    }
    let mut out = io::stdout().lock();
    Ok(out.write_all(&page).and_then(|()| out.flush())?)
}

fn run_with_settings(cli: &Cli) -> anyhow::Result<()> {
    let flags = match &cli.command {
        Command::Serve(serve) => serve.typed(),
        Command::Migrate { to, cluster_key, .. } => {
            let key = cluster_key.clone().map(|key| ("cluster_key", key));
            key.into_iter().chain([("database", to.clone())]).collect()
        }
        _ => Typed::new(),
    };
    let (data_dir, settings) = resolve(cli, flags)?;
    let config = Config::new(data_dir, &settings)?;
    start_logging(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &cli.command {
            Command::Serve(_) => crate::run(config).await,
            Command::Health { tracker, ca } => operator::health(&config, tracker, ca.as_deref()).await,
            Command::Backup { file } => operator::backup(&config, file).await,
            Command::Restore { file } => operator::restore(&config, file).await,
            Command::User(User::Create { name }) => operator::create_user(&config, name).await,
            Command::Migrate { from, .. } => operator::migrate(&config, from).await,
            Command::User(User::Disable { name }) => operator::set_disabled(&config, name, true).await,
            Command::User(User::Enable { name }) => operator::set_disabled(&config, name, false).await,
            Command::User(User::ResetPassword { name }) => operator::reset_password(&config, name).await,
            Command::Audit { since, json } => operator::audit(&config, since.as_deref(), *json).await,
            Command::Config(Show::Show) => operator::show(&settings),
            // These need no settings.
            Command::Completions { .. } | Command::Man => Ok(()),
        }
    })
}

/// Resolves the data directory and all other settings.
fn resolve(cli: &Cli, mut flags: Typed) -> anyhow::Result<(PathBuf, Settings)> {
    for (name, value) in [
        ("database", &cli.database),
        ("database_password_file", &cli.database_password_file),
        ("log", &cli.log),
        ("log_format", &cli.log_format),
    ] {
        flags.extend(value.clone().map(|value| (name, value)));
    }
    for (name, path) in [("data_dir", &cli.data_dir), ("config", &cli.config)] {
        let Some(path) = path else { continue };
        let message = || format!("{path:?} is not UTF-8");
        let not_text = || SettingsError::Value { name, origin: Origin::Flag, message: message() };
        flags.insert(name, path.to_str().ok_or_else(not_text)?.to_owned());
    }
    let mut layers = Layers {
        flags,
        env: &|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()),
        file: PathBuf::new(),
        file_asked: false,
        directory: std::env::current_dir()?,
    };
    let data_dir = |settings: &Settings| match settings.optional("data_dir", str::parse::<PathBuf>)? {
        Some(path) => Ok(path),
        None => anyhow::Ok(config::default_data_dir()?),
    };
    let typed = Settings::typed(SETTINGS, &layers);
    let asked = typed.optional("config", str::parse::<PathBuf>)?;
    layers.file_asked = asked.is_some();
    layers.file = match asked {
        Some(file) => file,
        None => data_dir(&typed)?.join(config::FILE),
    };
    let mut settings = Settings::resolve(SETTINGS, &layers)?;
    let data_dir = data_dir(&settings)?;
    settings.show_default("data_dir", &data_dir);
    settings.show_default("config", &layers.file);
    Ok((data_dir, settings))
}

fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(&config.log);
    let format = config.log_format;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Escaping::new(io::stderr(), format))
        .with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Whether the reader of our output has closed it. That is not an error of this program.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_has_all_sections() {
        let mut page = Vec::new();
        program::man::page(Cli::command(), manual::EXTRA, &mut page).expect("memory");
        let page = String::from_utf8(page).expect("text");
        for part in [
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "TRACKER\\-SVC USER DISABLE",
            "TRACKER_LISTEN",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn every_flag_of_serve_is_a_setting() {
        let names = ["x", "y"].map(|name| format!("--tls-name={name}"));
        let typed = Cli::try_parse_from(
            [
                "tracker-svc",
                "serve",
                "--listen=1",
                "--tls-cert=2",
                "--tls-key=3",
                "--ca-out=4",
                "--cluster-key=8",
                "--plaintext",
            ]
            .map(ToOwned::to_owned)
            .into_iter()
            .chain(names)
            .chain(
                [
                    "--allow-insecure",
                    "--metrics=5",
                    "--swarm=8",
                    "--swarm-password-file=9",
                    "--reflection=6",
                    "--ticket-ttl=7",
                    "--registration=open",
                    "--group-creator=ann",
                    "--max-group-bytes=10GiB",
                    "--max-group-files=11",
                    "--max-user-bytes=12GiB",
                    "--max-user-files=13",
                    "--limit-local-accounts",
                ]
                .map(ToOwned::to_owned),
            ),
        );
        let Ok(Cli { command: Command::Serve(serve), .. }) = typed else { panic!("serve was typed") };
        let typed = serve.typed();
        // The global flags are not flags of `serve`.
        let global = ["data_dir", "config", "database", "database_password_file", "log", "log_format"];
        for setting in SETTINGS.iter().filter(|setting| !global.contains(&setting.name)) {
            assert!(typed.contains_key(setting.name), "{} has no flag", setting.name);
        }
        assert_eq!(typed.get("tls_name").map(String::as_str), Some("x,y"));
    }
}
