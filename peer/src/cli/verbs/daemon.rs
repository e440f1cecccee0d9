//! The daemon itself, and what it is doing.

use std::{fs, io, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use proto::pb;
use serde_json::json;

use crate::{
    cli::{
        Context,
        args::{DaemonArgs, DaemonVerb, Global},
        exit::{Exit, Failure},
        link, render, resolve,
    },
    daemon as process, observe, units,
};

/// How long a daemon may take to end: it gives itself ten seconds.
const END: Duration = Duration::from_secs(15);

/// Is the daemon, until it is told to end.
pub(in crate::cli) fn run(global: &Global, args: &DaemonArgs) -> Exit {
    let style = render::Style { json: global.json, quiet: global.quiet };
    match serve(global, args) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            style.failure(&failure);
            failure.exit
        }
    }
}

fn serve(global: &Global, args: &DaemonArgs) -> Result<(), Failure> {
    let config = resolve::config(global, Some(args))?;
    let lock = process::take_lock(&config).map_err(daemon_failure)?;
    if args.detached {
        // Fails only for a process that leads a group already, and so has no terminal to leave.
        let _ = rustix::process::setsid();
    }
    observe::start_logging(&config.log, config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::daemon(format!("no runtime: {error}")))?;
    let ended = runtime.block_on(process::run(config, lock)).map_err(daemon_failure);
    // What did not end in time is left behind.
    runtime.shutdown_background();
    ended
}

fn daemon_failure(error: process::DaemonError) -> Failure {
    let exit = match error {
        process::DaemonError::Running(_) => Exit::Conflict,
        _ => Exit::Other,
    };
    Failure { exit, ..Failure::daemon(error.to_string()) }
}

pub(super) async fn control(context: &Context, args: &DaemonArgs) -> Result<(), Failure> {
    match args.verb {
        Some(DaemonVerb::Stop) => stop(context).await,
        None => Err(Failure::usage("a daemon can't be run from the shell")),
    }
}

async fn stop(context: &Context) -> Result<(), Failure> {
    let daemon = context.running_daemon().await?;
    daemon.control().shutdown(pb::ShutdownRequest {}).await?;
    link::wait_for_end(&context.config, END).await?;
    context.style.done(&json!({"stopped": true}), "the daemon has ended");
    Ok(())
}

pub(super) async fn status(context: &Context) -> Result<(), Failure> {
    let daemon = context.running_daemon().await?;
    let (object, text) =
        render::status(&daemon.control().get_status(pb::GetStatusRequest {}).await?.into_inner());
    context.style.result(&object, &text);
    Ok(())
}

/// Exit 1 when something is bad.
pub(super) async fn doctor(context: &Context) -> Result<Exit, Failure> {
    let daemon = context.daemon().await?;
    let answer = daemon.control().diagnose(pb::DiagnoseRequest {}).await?.into_inner();
    let (object, text) = render::checks(&answer.checks);
    context.style.result(&object, &text);
    let bad = answer.checks.iter().any(|check| check.result() == pb::CheckResult::Bad);
    Ok(if bad { Exit::Other } else { Exit::Done })
}

pub(super) async fn limit(context: &Context, up: Option<&str>, down: Option<&str>) -> Result<(), Failure> {
    let rate = |text: Option<&str>| text.map(units::parse_rate).transpose().map_err(Failure::usage);
    let request = pb::SetLimitsRequest { upload: rate(up)?, download: rate(down)? };
    let answer = context.daemon().await?.control().set_limits(request).await?.into_inner();
    let text = format!("upload {}, download {}", units::limit(answer.upload), units::limit(answer.download));
    context.style.result(&json!({"upload_limit": answer.upload, "download_limit": answer.download}), &text);
    Ok(())
}

pub(super) async fn export_cert(context: &Context, dir: &Path) -> Result<(), Failure> {
    let dir = context.directory.join(dir);
    let answer = context.daemon().await?.control().export_cert(pb::ExportCertRequest {}).await?.into_inner();
    fs::create_dir_all(&dir).map_err(|error| Failure::io(dir.display(), &error))?;
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    write(&certificate, &answer.certificate_pem, 0o644)?;
    write(&key, &answer.key_pem, 0o600)?;
    let object = json!({"certificate": certificate, "key": key, "tls_name": answer.tls_name});
    let text = format!(
        "{} and {}, for {}\nThe key is this peer's: whoever has it can pose as it.",
        certificate.display(),
        key.display(),
        answer.tls_name
    );
    context.style.done(&object, &text);
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    // Made anew, for the mode of a file that is there would stay.
    let removed = fs::remove_file(path);
    let made = match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path),
    };
    made.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| Failure::io(path.display(), &error))
}
