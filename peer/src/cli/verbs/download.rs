//! Downloads.

use std::path::Path;

use proto::{domain::FileName, pb, reason::Reason};
use serde_json::json;
use tokio::time::Instant;
use tonic::Streaming;

use crate::{
    cli::{
        Context,
        args::GroupFile,
        exit::{Exit, Failure},
        interrupt, render, resolve,
    },
    units,
};

/// How a file is to be downloaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) detach: bool,
    pub(super) sequential: bool,
    pub(super) verify: bool,
}

/// How watching a download ended.
enum Watched {
    /// The download ended, or was only to be started.
    Ended(Box<pb::Download>),
    /// Ctrl-C.
    Interrupted,
    /// `--timeout`.
    TimedOut(Box<pb::Download>),
    /// It waits until there is room on its disk.
    DiskFull(Box<pb::Download>),
}

pub(super) async fn download(
    context: &Context,
    group: &str,
    name: &str,
    dest: &Path,
    how: How,
) -> Result<Exit, Failure> {
    // Before it becomes part of a path.
    let name: FileName =
        name.parse().map_err(|error| Failure::of(Reason::InvalidName, format!("{name:?}: {error}")))?;
    let resolve::Destination { path, make_parents } =
        resolve::destination(&context.directory, dest, name.as_str())?;
    let request = pb::DownloadRequest {
        file: Some(pb::FileName { group_id: group.to_owned(), name: name.to_string() }),
        destination: resolve::absolute(&context.directory, &path)?,
        make_parents,
        sequential: how.sequential,
        verify: how.verify,
        follow: !how.detach,
    };
    let deadline = context.limit.map(|limit| Instant::now() + limit);
    let begin = async {
        let mut control = context.daemon().await?.control();
        Ok::<_, Failure>(control.download(request).await?.into_inner())
    };
    let answers = tokio::select! {
        answers = begin => answers?,
        () = interrupt() => return Err(Failure::interrupted()),
        () = until(deadline) => return Err(Failure::timed_out("the download was not accepted in time")),
    };
    let watched = watch(context, answers, deadline).await?;
    report(context, watched, how.detach)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Shows the download until it ends, the time is over, or Ctrl-C.
async fn watch(
    context: &Context,
    mut answers: Streaming<pb::DownloadResponse>,
    deadline: Option<Instant>,
) -> Result<Watched, Failure> {
    let live = context.style.live();
    let mut last = Box::<pb::Download>::default();
    let watched = loop {
        tokio::select! {
            answer = answers.message() => match answer? {
                Some(pb::DownloadResponse { download: Some(download) }) => {
                    live.show(render::download_text(&download));
                    *last = download;
                    if is_disk_full(&last) {
                        break Watched::DiskFull(last);
                    }
                }
                Some(_) => {}
                None => break Watched::Ended(last),
            },
            () = interrupt() => break Watched::Interrupted,
            () = until(deadline) => break Watched::TimedOut(last),
        }
    };
    live.end();
    Ok(watched)
}

fn report(context: &Context, watched: Watched, detach: bool) -> Result<Exit, Failure> {
    match watched {
        Watched::Interrupted => {
            let message = "the download goes on in the daemon; `peer show-downloads` shows it, `peer stop-download` stops it";
            Err(Failure { message: message.into(), ..Failure::interrupted() })
        }
        Watched::TimedOut(download) => Err(timed_out(&download)),
        Watched::DiskFull(download) => Err(disk_full(&download)),
        Watched::Ended(download) => ended(context, &download, detach),
    }
}

fn ended(context: &Context, download: &pb::Download, detach: bool) -> Result<Exit, Failure> {
    let (name, group) = (render::name(&download.name), render::name(&download.group_id));
    let (size, place) = (units::size(download.size), render::name(&download.destination));
    match download.state() {
        pb::DownloadState::Complete => {
            let from = render::given(&download.sources);
            let text = format!("{name} of {group} is complete: {size}{from} at {place}");
            context.style.done(&render::download_json(download), &text);
            Ok(Exit::Done)
        }
        pb::DownloadState::Stopped => Err(Failure::of(
            Reason::Stopped,
            format!("the download of {name} was stopped; `peer resume-download` takes it up again"),
        )),
        pb::DownloadState::Failed => {
            let reason = Reason::from_text(&download.reason).unwrap_or(Reason::Internal);
            Err(Failure::of(reason, format!("the download of {name} failed: {}", download.cause)))
        }
        _ if detach => {
            let text = format!(
                "{name} of {group} ({size}) comes to {place}; `peer show-downloads` shows how far it is"
            );
            context.style.done(&render::download_json(download), &text);
            Ok(Exit::Done)
        }
        _ => Err(Failure::daemon(
            "the daemon ended before the download did; it goes on when the daemon runs again",
        )),
    }
}

fn is_disk_full(download: &pb::Download) -> bool {
    download.state() == pb::DownloadState::Stalled && download.reason == Reason::DiskFull.as_str()
}

/// Waiting for room may take for ever, and somebody has to make it: the verb ends, the download does not.
fn disk_full(download: &pb::Download) -> Failure {
    let (name, percent) = (render::name(&download.name), render::percent(download));
    let place = render::name(&download.destination);
    let message = format!(
        "{name} stands at {percent}%: {} at {place}; free some space and it goes on, or `peer stop-download` it",
        download.cause
    );
    Failure::of(Reason::DiskFull, message)
}

/// Why it is not done in time: nobody had it, everybody lied, or it just takes longer.
fn timed_out(download: &pb::Download) -> Failure {
    let goes_on = "the daemon goes on trying";
    let name = render::name(&download.name);
    if download.all_banned {
        Failure::of(Reason::Corrupt, format!("every source of {name} sent bad pieces; {goes_on}"))
    } else if !download.had_source && download.size > 0 {
        Failure::of(Reason::NoSource, format!("no usable source of {name} was found in time; {goes_on}"))
    } else {
        let percent = render::percent(download);
        Failure::timed_out(format!("{name} is at {percent}% only; {goes_on}"))
    }
}

pub(super) async fn show(context: &Context, follow: bool) -> Result<(), Failure> {
    let request = pb::ListDownloadsRequest { follow };
    let mut answers = context.daemon().await?.control().list_downloads(request).await?.into_inner();
    let live = context.style.live_result().filter(|_| follow);
    while let Some(answer) = answers.message().await? {
        let (object, text) = render::downloads(&answer.downloads);
        match &live {
            Some(live) => live.show(text),
            None => context.style.result(&object, &text),
        }
    }
    Ok(())
}

fn named(file: &GroupFile) -> Option<pb::FileName> {
    Some(pb::FileName { group_id: file.group.clone(), name: file.name.clone() })
}

pub(super) async fn stop(context: &Context, file: &GroupFile, discard: bool) -> Result<(), Failure> {
    let request = pb::StopDownloadRequest { file: named(file), discard };
    context.daemon().await?.control().stop_download(request).await?;
    let kept = if discard { "what was there of it is deleted" } else { "its verified pieces are kept" };
    let text = format!("the download of {} is stopped; {kept}", render::name(&file.name));
    context.style.done(&json!({"group": file.group, "name": file.name, "discarded": discard}), &text);
    Ok(())
}

pub(super) async fn resume(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::ResumeDownloadRequest { file: named(file) };
    context.daemon().await?.control().resume_download(request).await?;
    let text = format!("the download of {} runs", render::name(&file.name));
    context.style.done(&json!({"group": file.group, "name": file.name}), &text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_tells_why() {
        let download = pb::Download { name: "f".into(), size: 100, done_bytes: 10, ..Default::default() };
        assert_eq!(timed_out(&download).exit, Exit::NoSource);
        let download = pb::Download { had_source: true, ..download };
        assert_eq!(timed_out(&download).exit, Exit::TimedOut);
        let download = pb::Download { all_banned: true, ..download };
        assert_eq!(timed_out(&download).exit, Exit::Integrity);
    }

    #[test]
    fn a_full_disk_ends_the_verb_and_other_stalls_do_not() {
        let stalled = |reason: Reason| pb::Download {
            name: "f".into(),
            state: pb::DownloadState::Stalled.into(),
            reason: reason.as_str().into(),
            ..Default::default()
        };
        assert!(!is_disk_full(&stalled(Reason::NoSource)) && is_disk_full(&stalled(Reason::DiskFull)));
        assert_eq!(disk_full(&stalled(Reason::DiskFull)).exit, Exit::DiskFull);
    }
}
