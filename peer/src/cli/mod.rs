//! The command line: parse, resolve, call the daemon, print.
//!
//! - `args`: as typed. `resolve`: as meant. `link`: the daemon, started where there is none.
//! - `verbs`: one file a group of verbs. `render`: all printing. `exit`: all exit codes.
//! - `trust`: a tracker's CA, looked at by a person.

pub mod args;
mod exit;
mod link;
mod password;
mod render;
mod resolve;
mod trust;
mod verbs;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{Parser as _, error::ErrorKind};
use proto::settings::boolean;

use self::{
    args::{Cli, Verb},
    exit::{Exit, Failure},
    link::Daemon,
    render::Style,
};
use crate::config::Config;

/// What a verb needs to know and to do its work.
#[derive(Debug)]
struct Context {
    config: Config,
    /// What relative paths start from.
    directory: std::path::PathBuf,
    style: Style,
    limit: Option<Duration>,
    in_shell: bool,
}

impl Context {
    /// The daemon, started where there is none.
    async fn daemon(&self) -> Result<Daemon, Failure> {
        link::reach(&self.config, true).await
    }

    /// The daemon, if one runs.
    async fn running_daemon(&self) -> Result<Daemon, Failure> {
        link::reach(&self.config, false).await
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    crate::memory::keep_freed_buffers();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments).into(),
    };
    if let Verb::Daemon(args) = &cli.verb
        && args.verb.is_none()
    {
        return verbs::daemon::run(&cli.global, args).into();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            render::note(&format!("peer: can't start: {error}"));
            return Exit::Other.into();
        }
    };
    let exit = runtime.block_on(run(cli, false));
    // A prompt that was interrupted still reads the terminal in a thread of its own.
    runtime.shutdown_background();
    exit.into()
}

/// Runs one verb, prints its failure, and tells the exit code.
async fn run(cli: Cli, in_shell: bool) -> Exit {
    let plain = Style { json: wants_json(cli.global.json), quiet: cli.global.quiet };
    let context = match context(&cli, in_shell) {
        Ok(context) => context,
        Err(failure) => {
            plain.failure(&failure);
            return failure.exit;
        }
    };
    let style = context.style;
    match limited(cli.verb, &context).await {
        Ok(exit) => exit,
        Err(failure) => {
            style.failure(&failure);
            failure.exit
        }
    }
}

fn context(cli: &Cli, in_shell: bool) -> Result<Context, Failure> {
    let config = resolve::config(&cli.global, None)?;
    let directory = std::env::current_dir().map_err(|error| Failure::io("the current directory", &error))?;
    let style = Style { json: config.json, quiet: config.quiet };
    let limit = resolve::time_limit(&cli.verb, &config);
    Ok(Context { config, directory, style, limit, in_shell })
}

/// The verb, until its time is over or Ctrl-C.
async fn limited(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    // A download and the shell see to their own limits: they have more to say about it.
    let limit = context.limit.filter(|_| !matches!(verb, Verb::Download { .. } | Verb::Shell));
    let own_interrupt = matches!(verb, Verb::Shell | Verb::Download { .. });
    let work = verbs::dispatch(verb, context);
    let work = async {
        match limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let seconds = limit.as_secs_f64();
                Err(Failure::timed_out(format!("not done within {seconds} s; --timeout allows for more")))
            }),
        }
    };
    if own_interrupt {
        return work.await;
    }
    tokio::select! {
        done = work => done,
        () = interrupt() => Err(Failure::interrupted()),
    }
}

/// Returns at Ctrl-C.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether errors are JSON before the settings are resolved, and when they can't be.
fn wants_json(flag: bool) -> bool {
    let set = || std::env::var("PEER_JSON").is_ok_and(|text| boolean(&text) == Ok(true));
    flag || set()
}

/// Prints what the parser has to say: help and version are no failures.
fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = wants_json(arguments.iter().any(|argument| argument == "--json"));
    if json && !asked {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Style { json, quiet: false }.failure(&Failure::usage(message));
    } else if let Err(error) = error.print() {
        // A reader that has left wants no help.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            return Exit::Other;
        }
    }
    if asked { Exit::Done } else { Exit::Usage }
}
