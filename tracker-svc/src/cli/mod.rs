//! The command line: what is typed, and which command it is. The work is in [`operator`] and [`crate::run()`].

mod operator;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use proto::settings::{Layers, LogFormat, Settings, SettingsError, Typed};

use crate::config::{self, Config, SETTINGS};

/// The Mini Torrent tracker: accounts, groups, manifests and who holds which piece. It never sees file bytes.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where database, authority and keys are; made at first start [env: TRACKER_DATA_DIR] [default: the user's state directory]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file [env: TRACKER_CONFIG] [default: DIR/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which logs are written to standard error, as `info` or `tracker_svc=debug,warn` [env: TRACKER_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// How logs are written: text or json [env: TRACKER_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    #[command(
        after_help = "Example: tracker-svc serve --listen 0.0.0.0:7700 --data-dir tracker-data --tls-name files.example.org"
    )]
    Serve(Box<Serve>),
    /// Ask a tracker whether it serves; for health checks
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
    /// Make the data directory of a copy; what is there is kept beside
    #[command(after_help = "Example: tracker-svc restore --data-dir tracker-data tracker.backup")]
    Restore {
        /// The copy to take
        file: PathBuf,
    },
    /// Manage an account, also while serving
    #[command(subcommand)]
    User(User),
    /// Show the audit log
    #[command(after_help = "Example: tracker-svc audit --since 2h --json")]
    Audit {
        /// From then on: a time like 2026-01-31T08:00:00Z, or an age like 2h or 7d
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show the settings
    #[command(subcommand)]
    Config(Show),
}

#[derive(Subcommand)]
enum User {
    /// Shut an account: its sessions and transfers end within 15 seconds
    #[command(after_help = "Example: tracker-svc user disable ann --data-dir tracker-data")]
    Disable {
        /// The account
        name: String,
    },
    /// Open an account again
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
    /// Every setting, with where its value came from
    #[command(after_help = "Example: tracker-svc config show --data-dir tracker-data")]
    Show,
}

/// What is typed for `serve`: text, so that every layer is read in one way ([`proto::settings`]).
#[derive(Args)]
struct Serve {
    /// Where to listen; port 0 picks a free one [env: TRACKER_LISTEN] [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A further name or address for the certificate; may be repeated [env: TRACKER_TLS_NAME]
    #[arg(long, value_name = "HOST")]
    tls_name: Vec<String>,
    /// Own certificate chain instead of one by the tracker's authority [env: TRACKER_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The own certificate's key [env: TRACKER_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// A second place for the authority's certificate [env: TRACKER_CA_OUT]
    #[arg(long, value_name = "FILE")]
    ca_out: Option<String>,
    /// Serve without TLS, on a loopback address [env: TRACKER_PLAINTEXT]
    #[arg(long)]
    plaintext: bool,
    /// With --plaintext: on any address. Everybody on the way can read and change what is said [env: TRACKER_ALLOW_INSECURE]
    #[arg(long)]
    allow_insecure: bool,
    /// Where to serve Prometheus metrics [env: TRACKER_METRICS]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Serve gRPC reflection: true or false [env: TRACKER_REFLECTION] [default: true]
    #[arg(long, value_name = "BOOL")]
    reflection: Option<String>,
    /// How long a ticket is good, 1m to 24h [env: TRACKER_TICKET_TTL] [default: 30m]
    #[arg(long, value_name = "TIME")]
    ticket_ttl: Option<String>,
    /// Count accounts made from loopback for the hourly limit too [env: TRACKER_LIMIT_LOCAL_ACCOUNTS]
    #[arg(long)]
    limit_local_accounts: bool,
}

impl Serve {
    fn typed(&self) -> Typed {
        let text = [
            ("listen", &self.listen),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("ca_out", &self.ca_out),
            ("metrics", &self.metrics),
            ("reflection", &self.reflection),
            ("ticket_ttl", &self.ticket_ttl),
        ];
        let switches = [
            ("plaintext", self.plaintext),
            ("allow_insecure", self.allow_insecure),
            ("limit_local_accounts", self.limit_local_accounts),
        ];
        let mut typed: Typed =
            text.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        typed.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".to_owned())));
        if !self.tls_name.is_empty() {
            typed.insert("tls_name", self.tls_name.join(","));
        }
        typed
    }
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    ExitCode::from(run_from(std::env::args_os()))
}

/// Runs a command, the program's name first, and says what to exit with: 0 all is well, 1 it failed, 2 it was not
/// understood, be it the line or a setting.
pub fn run_from(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    match run(&cli) {
        Ok(()) => 0,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tracker-svc: {error:#}");
            if error.is::<SettingsError>() { 2 } else { 1 }
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let flags = match &cli.command {
        Command::Serve(serve) => serve.typed(),
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
            Command::User(User::Disable { name }) => operator::set_disabled(&config, name, true).await,
            Command::User(User::Enable { name }) => operator::set_disabled(&config, name, false).await,
            Command::User(User::ResetPassword { name }) => operator::reset_password(&config, name).await,
            Command::Audit { since, json } => operator::audit(&config, since.as_deref(), *json).await,
            Command::Config(Show::Show) => operator::show(&settings),
        }
    })
}

/// The data directory, and everything else that is set.
fn resolve(cli: &Cli, mut flags: Typed) -> anyhow::Result<(PathBuf, Settings)> {
    for (name, value) in [("log", &cli.log), ("log_format", &cli.log_format)] {
        flags.extend(value.clone().map(|value| (name, value)));
    }
    for (name, path) in [("data_dir", &cli.data_dir), ("config", &cli.config)] {
        flags.extend(path.as_ref().map(|path| (name, path.to_string_lossy().into_owned())));
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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Whoever read our output has gone: nothing is wrong with us.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
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
                "--plaintext",
            ]
            .map(ToOwned::to_owned)
            .into_iter()
            .chain(names)
            .chain(
                [
                    "--allow-insecure",
                    "--metrics=5",
                    "--reflection=6",
                    "--ticket-ttl=7",
                    "--limit-local-accounts",
                ]
                .map(ToOwned::to_owned),
            ),
        );
        let Ok(Cli { command: Command::Serve(serve), .. }) = typed else { panic!("serve was typed") };
        let typed = serve.typed();
        // Those of every command are not serve's own.
        let global = ["data_dir", "config", "log", "log_format"];
        for setting in SETTINGS.iter().filter(|setting| !global.contains(&setting.name)) {
            assert!(typed.contains_key(setting.name), "{} has no flag", setting.name);
        }
        assert_eq!(typed.get("tls_name").map(String::as_str), Some("x,y"));
    }
}
