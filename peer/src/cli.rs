//! The command line: parse, resolve, call the daemon, print.
//!
//! - `args`: the arguments as typed.
//! - `resolve`: the settings that they mean.
//! - `link`: the connection to the daemon, which is started if there is none.
//! - `context`: what each verb is given.
//! - `verbs`: one file for each group of verbs.
//! - `completion`: what may stand at a place of a line, for shells and for `peer shell`.
//! - `hints`: what a failure and a remedy say about this group and this home.
//! - `manual`: the manual page.
//! - `render`: all printing.
//! - `exit`: all exit codes.
//! - `trust`: asks the user whether a tracker's CA is the right one.

pub mod args;
mod completion;
mod context;
mod exit;
mod hints;
mod link;
mod manual;
mod password;
mod render;
mod resolve;
mod trust;
mod verbs;

use std::{ffi::OsString, pin::Pin, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};
use program::settings::boolean;

use self::{
    args::{Cli, Verb},
    context::{Context, Typing, interrupt},
    exit::{Exit, Failure},
    render::Style,
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    crate::memory::keep_freed_buffers();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if completion::answer(&arguments) {
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments).into(),
    };
    if let Some(home) = &cli.global.home {
        render::hints_name(home);
    }
    if let Verb::Daemon(args) = &cli.verb
        && args.verb.is_none()
    {
        crate::daemon::surroundings::close_inherited_files();
        return verbs::daemon::run(&cli.global, args).into();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            render::note(&format!("peer: the program can't start: {error}"));
            return Exit::Other.into();
        }
    };
    let exit = runtime.block_on(run(cli, false));
    // A prompt that was interrupted still reads the terminal, in a thread of its own.
    runtime.shutdown_background();
    exit.into()
}

/// Runs one verb, prints its failure, and returns the exit code.
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
    let group = hints::group_of(&cli.verb);
    match limited(cli.verb, &context).await {
        Ok(exit) => exit,
        Err(failure) => {
            let failure = hints::about(failure, group.as_deref(), &context).await;
            style.failure(&failure);
            failure.exit
        }
    }
}

/// Runs one line of the shell.
fn run_in_shell(cli: Cli) -> Pin<Box<dyn Future<Output = Exit>>> {
    Box::pin(run(cli, true))
}

fn context(cli: &Cli, in_shell: bool) -> Result<Context, Failure> {
    let config = resolve::config(&cli.global, None)?;
    let directory = resolve::directory();
    let style = Style { json: config.json, quiet: config.quiet };
    let limit = resolve::time_limit(&cli.verb, &config);
    Ok(Context { config, directory, style, limit, in_shell, typing: Typing::default() })
}

/// Runs the verb until it ends, its time limit passes, or the user presses Ctrl-C.
async fn limited(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    // A download and the shell handle their own limits: they print more about it.
    let limit =
        context.limit.filter(|_| !matches!(verb, Verb::Download { .. } | Verb::Get { .. } | Verb::Shell));
    let own_interrupt = matches!(verb, Verb::Shell | Verb::Download { .. } | Verb::Get { .. });
    let work = async {
        match verb {
            Verb::Shell => verbs::shell::run(context, &run_in_shell).await,
            verb => verbs::dispatch(verb, context).await,
        }
    };
    let work = async {
        match limit {
            None => work.await,
            Some(limit) => tokio::select! {
                biased;
                done = work => done,
                () = context.typing.limit(limit) => {
                    let seconds = limit.as_secs_f64();
                    Err(Failure::timed_out(format!(
                        "the command did not finish within {seconds} s; --timeout sets a longer limit"
                    )))
                }
            },
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

/// Returns true if errors are printed as JSON. Used before the settings are resolved, and when they can't be.
fn wants_json(flag: bool) -> bool {
    let set = || std::env::var("PEER_JSON").is_ok_and(|text| boolean(&text) == Ok(true));
    flag || set()
}

/// Prints the parser's message. Help and version are not failures.
fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = wants_json(arguments.iter().any(|argument| argument == "--json"));
    if json && !asked {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Style { json, quiet: false }.failure(&Failure::usage(message));
    } else if let Err(error) = error.print() {
        // A closed pipe is not an error: the reader has seen enough.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            return Exit::Other;
        }
    }
    if asked { Exit::Done } else { Exit::Usage }
}
