//! The daemon itself, and its state.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use program::durable::{self, Readers};
use proto::pb;
use serde_json::json;

use super::leaving;
use crate::{
    cli::{
        args::{DaemonArgs, DaemonVerb, Global, Leaving},
        context::Context,
        exit::{Exit, Failure},
        link, render, resolve,
    },
    daemon as process, observe, paths, storage, units,
};

/// How long a daemon may take to end. It gives itself nine seconds.
const END: Duration = Duration::from_secs(12);
/// How long a daemon may take to say that it will end.
const ANSWER: Duration = Duration::from_secs(5);

/// Runs as the daemon until it is told to end.
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
        // This fails only for a process that leads a process group already, and so has no terminal to leave.
        let _ = rustix::process::setsid();
    }
    observe::start_logging(&config.log, config.log_format);
    for kept in process::surroundings::settle() {
        tracing::warn!("{kept}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::daemon(format!("the runtime can't be started: {error}")))?;
    let ended = runtime.block_on(process::run(config, lock, storage::on_disk())).map_err(daemon_failure);
    // Tasks that did not end in time are left behind.
    runtime.shutdown_background();
    ended
}

fn daemon_failure(error: process::DaemonError) -> Failure {
    let exit = match error {
        process::DaemonError::Running { .. } => Exit::Conflict,
        _ => Exit::Other,
    };
    Failure { exit, ..Failure::daemon(error.to_string()) }
}

pub(super) async fn control(context: &Context, args: &DaemonArgs) -> Result<(), Failure> {
    match &args.verb {
        Some(DaemonVerb::Stop(leaving)) => stop(context, leaving).await,
        None => Err(Failure::usage("the shell can't run a daemon; run `peer daemon` outside the shell")),
    }
}

/// Ends the daemon: by its socket, or by its process id if it does not answer there.
async fn stop(context: &Context, leaving: &Leaving) -> Result<(), Failure> {
    let config = &context.config;
    // A daemon that does not answer is ended all the same.
    if let Ok(Ok(daemon)) = tokio::time::timeout(ANSWER, context.running_daemon()).await {
        leaving::check(context, &daemon, leaving, None, None).await?;
    }
    let asked = async {
        context
            .running_daemon()
            .await?
            .control()
            .shutdown(pb::ShutdownRequest {})
            .await
            .map_err(Failure::from)
    };
    let how = match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(_)) => {
            if link::wait_for_end(config, END).await? {
                None
            } else {
                Some("did not end in time")
            }
        }
        Ok(Err(failure)) if !failure.is_silence() => return Err(failure),
        Ok(Err(_)) | Err(_) => Some("did not answer"),
    };
    let text = match how {
        None => "the daemon has stopped".to_owned(),
        Some(why) => {
            let pid = link::holder(config)?.and_then(|holder| holder.pid);
            link::end_by_pid(config).await?;
            let pid = pid.map(|pid| format!(" {pid}")).unwrap_or_default();
            format!("the daemon {why} and was ended by its process id{pid}")
        }
    };
    context.style.done(&json!({"stopped": true, "by_pid": how.is_some()}), &text);
    Ok(())
}

pub(super) async fn status(context: &Context) -> Result<(), Failure> {
    let daemon = context.running_daemon().await?;
    let (object, text) =
        render::status(&daemon.control().get_status(pb::GetStatusRequest {}).await?.into_inner());
    context.style.result(&object, &text);
    Ok(())
}

/// Ends with exit code 1 when a check finds something bad.
pub(super) async fn doctor(context: &Context) -> Result<Exit, Failure> {
    let daemon = context.daemon().await?;
    let answer = daemon.control().diagnose(pb::DiagnoseRequest {}).await?.into_inner();
    let (object, text) = render::checks(&answer.checks);
    context.style.painted(&object, &text);
    let bad = answer.checks.iter().any(|check| check.result() == pb::CheckResult::Bad);
    Ok(if bad { Exit::Other } else { Exit::Done })
}

pub(super) async fn page(context: &Context, listen: Option<String>, no_open: bool) -> Result<(), Failure> {
    let request = pb::OpenPageRequest { listen: listen.unwrap_or_default() };
    let opened = context.daemon().await?.control().open_page(request).await?.into_inner();
    let pb::OpenPageResponse { url, certificate_sha256: sha256 } = opened;
    let shown = Some(&sha256).filter(|sha256| !sha256.is_empty());
    context.style.result(&json!({"url": url, "certificate_sha256": shown}), &url);
    if shown.is_some() && !context.config.quiet && !context.config.json {
        render::note(&format!(
            "the browser warns, because nobody signed the page's certificate; go on if it shows this SHA-256 fingerprint: \
             {sha256}"
        ));
    }
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_desktop = is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    if !no_open && is_desktop && !context.config.json && io::stdout().is_terminal() {
        show(context, &url);
    }
    Ok(())
}

/// Opens the page in the user's browser. It is no failure if there is none: the link was printed.
fn show(context: &Context, url: &str) {
    let file = context.config.home.page_file();
    // The link is made of characters that mean nothing in HTML.
    let leads = format!(
        "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={url}\"><a href=\"{url}\">Go on</a>"
    );
    let opened = durable::write(&file, leads.as_bytes(), Readers::Owner).and_then(|()| {
        let mut browser = std::process::Command::new("xdg-open");
        // In a group of its own, it outlives the terminal.
        browser.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        browser.arg(&file).spawn()
    });
    if let Err(error) = opened {
        tracing::debug!(%error, "no browser can be opened");
    }
}

pub(super) async fn limit(context: &Context, up: Option<&str>, down: Option<&str>) -> Result<(), Failure> {
    let rate = |text: Option<&str>| text.map(units::parse_rate).transpose().map_err(Failure::usage);
    let request = pb::SetLimitsRequest { upload: rate(up)?, download: rate(down)? };
    let answer = context.daemon().await?.control().set_limits(request).await?.into_inner();
    // A rate is echoed as it was typed.
    let shown = |typed: Option<&str>, set: u64| match typed {
        Some(typed) if set != 0 => render::name(typed.trim()),
        _ => units::limit(set),
    };
    let text = format!("upload {}, download {}", shown(up, answer.upload), shown(down, answer.download));
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
    let object = json!({
        "certificate": certificate.to_string_lossy(),
        "certificate_base64": paths::exact(&certificate),
        "key": key.to_string_lossy(),
        "key_base64": paths::exact(&key),
        "tls_name": answer.tls_name,
    });
    let text = format!(
        "wrote {} and {} for {}\nThe key is this peer's private key. Keep it secret, because its holder can act \
         as this peer.",
        certificate.display(),
        key.display(),
        answer.tls_name
    );
    context.style.done(&object, &text);
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    // The file is created anew, because an existing file would keep its mode.
    let removed = fs::remove_file(path);
    let made = match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path),
    };
    made.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| Failure::io(path.display(), &error))
}
