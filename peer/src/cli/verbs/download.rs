//! Downloads.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use futures_util::StreamExt as _;
use proto::{
    domain::{FileName, Name as _},
    pb,
    reason::Reason,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Streaming;

use super::{
    groups::all_pages,
    leaving,
    several::{self, Board, Ends},
};
use crate::{
    cli::{
        args::{DownloadOptions, GroupFile, Leaving},
        context::{Context, interrupt},
        exit::{Exit, Failure},
        render, resolve,
    },
    paths, units,
};

/// The time between two drawings of several downloads.
const REDRAW: Duration = Duration::from_millis(200);

/// The ways in which watching a download ends.
enum Watched {
    /// The download ended, or was only to be started.
    Ended(Box<pb::Download>),
    /// There was nothing to update.
    Current(Box<pb::Download>),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The time limit of `--timeout` passed.
    TimedOut(Box<pb::Download>),
    /// The download waits until there is room on its disk.
    DiskFull(Box<pb::Download>),
}

pub(super) async fn download(
    context: &Context,
    group: &str,
    rest: &[PathBuf],
    how: &DownloadOptions,
) -> Result<Exit, Failure> {
    let picked = how.all || !how.matching.is_empty();
    let resolve::Downloads { names, dest } = resolve::downloads(rest, picked)?;
    if let [name] = names[..] {
        return one(context, group, name, dest, how).await;
    }
    let deadline = context.limit.map(|limit| Instant::now() + limit);
    let names: Vec<String> = if picked {
        pick(context, group, &how.matching).await?
    } else {
        resolve::directory_for_several(&context.directory, dest)?;
        names.into_iter().map(str::to_owned).collect()
    };
    // Whatever the files are, they go into a directory.
    several(context, group, &names, &dest.join(""), how, deadline).await
}

/// Downloads one file, and shows its progress unless it is left to the daemon.
pub(super) async fn one(
    context: &Context,
    group: &str,
    name: &str,
    dest: &Path,
    how: &DownloadOptions,
) -> Result<Exit, Failure> {
    let deadline = context.limit.map(|limit| Instant::now() + limit);
    let begin = begin(context, group, name, dest, how);
    let answers = tokio::select! {
        answers = begin => answers?,
        () = interrupt() => return Err(Failure::interrupted()),
        () = until(deadline) => return Err(not_accepted()),
    };
    let watched = watch(context, answers, deadline).await?;
    report(context, watched, how.detach)
}

fn not_accepted() -> Failure {
    Failure::timed_out("the daemon did not accept the download in time")
}

/// Asks the daemon for a download.
async fn begin(
    context: &Context,
    group: &str,
    name: &str,
    dest: &Path,
    how: &DownloadOptions,
) -> Result<Streaming<pb::DownloadResponse>, Failure> {
    // The name is checked before it becomes part of a path.
    let name: FileName = FileName::stored(name)
        .map_err(|error| Failure::of(Reason::InvalidName, format!("{name:?}: {error}")))?;
    let resolve::Destination { path, make_parents } =
        resolve::destination(&context.directory, dest, name.as_str())?;
    let (destination, destination_bytes) = paths::to_wire(&resolve::absolute(&context.directory, &path)?);
    let request = pb::DownloadRequest {
        file: Some(pb::FileName { group_id: group.to_owned(), name: name.to_string() }),
        destination,
        destination_bytes,
        make_parents,
        sequential: how.sequential,
        verify: how.verify,
        repair: how.repair,
        follow: !how.detach,
        umask: Some(umask()),
        update: false,
        only: how.only.clone(),
        exec: located(context, how.exec.clone()),
    };
    let mut control = context.daemon().await?.control();
    Ok(control.download(request).await?.into_inner())
}

/// Brings a copy to the current version, and shows the progress unless it is left to the daemon.
pub(super) async fn update(context: &Context, file: &GroupFile, detach: bool) -> Result<Exit, Failure> {
    let deadline = context.limit.map(|limit| Instant::now() + limit);
    let request = pb::DownloadRequest {
        file: named(file),
        update: true,
        follow: !detach,
        umask: Some(umask()),
        ..Default::default()
    };
    let begin = async {
        let mut control = context.daemon().await?.control();
        Ok::<_, Failure>(control.download(request).await?.into_inner())
    };
    let answers = tokio::select! {
        answers = begin => answers?,
        () = interrupt() => return Err(Failure::interrupted()),
        () = until(deadline) => return Err(not_accepted()),
    };
    let watched = watch(context, answers, deadline).await?;
    report(context, watched, detach)
}

/// Says what an update would do.
pub(super) async fn plan_update(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::PlanUpdateRequest { file: named(file) };
    let plan = context.daemon().await?.control().plan_update(request).await?.into_inner();
    let object = json!({
        "group": file.group,
        "name": file.name,
        "current": plan.current,
        "size": plan.size,
        "fetch_bytes": plan.fetch_bytes,
        "take_bytes": plan.take_bytes,
    });
    let (name, group) = (render::name(&file.name), render::name(&file.group));
    let (fetch, take) = (units::size(plan.fetch_bytes), units::size(plan.take_bytes));
    let text = if plan.current {
        format!("{name} of {group} is the current version here")
    } else {
        format!("an update of {name} of {group} would fetch {fetch}, and take {take} from the copy here")
    };
    context.style.result(&object, &text);
    Ok(())
}

/// The names of the group's files, or of those that match.
async fn pick(context: &Context, group: &str, patterns: &[String]) -> Result<Vec<String>, Failure> {
    let files = context.daemon().await?.files();
    let request = pb::ListFilesRequest { group_id: group.to_owned(), ..Default::default() };
    let files = all_pages!(files, list_files, files, request);
    let names = files.into_iter().filter_map(|file| Some(file.header?.name)).collect();
    if patterns.is_empty() { Ok(names) } else { several::matching(names, patterns) }
}

/// Downloads these files into the directory.
async fn several(
    context: &Context,
    group: &str,
    names: &[String],
    dest: &Path,
    how: &DownloadOptions,
    deadline: Option<Instant>,
) -> Result<Exit, Failure> {
    let (live, board) = (context.style.live(), Board::default());
    let mut ends = Ends::new(context, group, "downloads", names.len());
    let task = |number, name| {
        let board = &board;
        async move {
            let end = one_of_several(context, group, name, dest, how, &|now| board.set(number, now)).await;
            board.remove(number);
            end
        }
    };
    let mut running = pin!(several::each(names, task));
    let mut beat = tokio::time::interval(REDRAW);
    let cut = loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some((number, end)) => {
                    live.end();
                    ends.note(number, &names[number], end).await;
                }
                None => break None,
            },
            () = live.resized() => {}
            _ = beat.tick() => {}
            () = interrupt() => break Some(Failure::interrupted()),
            () = until(deadline) => {
                break Some(board.first().map_or_else(not_accepted, |download| timed_out(&download)));
            }
        }
        let done = ends.count();
        live.show(|width| board.text(done, names.len(), width));
    };
    live.end();
    let (left, going_on) = (names.len() - ends.count(), board.count());
    let exit = ends.finish();
    match cut {
        None if names.is_empty() => {
            render::note(&format!("{} has no files", render::name(group)));
            Ok(exit)
        }
        None => Ok(exit),
        Some(failure) => {
            let (all, waiting) = (units::count(names.len(), "file"), left.saturating_sub(going_on));
            let message = format!(
                "{left} of {all} are not done: {going_on} go on in the daemon, and {waiting} were not started; the same \
                 call again continues. {}",
                failure.message
            );
            Err(Failure { message, ..failure })
        }
    }
}

/// Carries out one download of several. Tells each of its states.
async fn one_of_several(
    context: &Context,
    group: &str,
    name: &str,
    dest: &Path,
    how: &DownloadOptions,
    tell: &dyn Fn(pb::Download),
) -> Result<(Value, String), Failure> {
    let mut answers = begin(context, group, name, dest, how).await?;
    let mut last = pb::Download::default();
    while let Some(answer) = answers.message().await? {
        let Some(download) = answer.download else { continue };
        if is_disk_full(&download) {
            return Err(disk_full(&download));
        }
        tell(download.clone());
        last = download;
    }
    ended(&last, how.detach)
}

/// A program whose path starts from this process's directory, as one that the daemon finds from its own.
pub(super) fn located(context: &Context, mut exec: Vec<String>) -> Vec<String> {
    if let Some(program) = exec.first_mut().filter(|program| program.contains('/'))
        && let Some(path) = context.directory.join(&*program).to_str()
    {
        *program = path.to_owned();
    }
    exec
}

/// The umask of this process. It decides on the permissions of the file, as if this process made it.
pub(super) fn umask() -> u32 {
    // The only way to read it is to set it. This process makes no file now.
    let umask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    rustix::process::umask(umask);
    umask.as_raw_mode()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Shows the download until it ends, its time limit passes, or the user presses Ctrl-C.
async fn watch(
    context: &Context,
    mut answers: Streaming<pb::DownloadResponse>,
    deadline: Option<Instant>,
) -> Result<Watched, Failure> {
    let live = context.style.live();
    let mut last = Box::<pb::Download>::default();
    let draw = |download: &pb::Download| live.show(|width| render::download_view(download, width));
    let watched = loop {
        tokio::select! {
            answer = answers.message() => match answer? {
                Some(pb::DownloadResponse { download: Some(download), current: true }) => {
                    break Watched::Current(Box::new(download));
                }
                Some(pb::DownloadResponse { download: Some(download), .. }) => {
                    draw(&download);
                    *last = download;
                    if is_disk_full(&last) {
                        break Watched::DiskFull(last);
                    }
                }
                Some(_) => {}
                None => break Watched::Ended(last),
            },
            () = live.resized() => draw(&last),
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
            let message = "the download continues in the daemon; `peer show-downloads` shows it, and \
                           `peer stop-download` stops it";
            Err(Failure { message: message.into(), ..Failure::interrupted() })
        }
        Watched::TimedOut(download) => Err(timed_out(&download)),
        Watched::DiskFull(download) => Err(disk_full(&download)),
        Watched::Current(download) => {
            let (name, group) = (render::name(&download.name), render::name(&download.group_id));
            let text = format!("{name} of {group} is the current version here");
            context.style.done(&render::download_json(&download), &text);
            Ok(Exit::Done)
        }
        Watched::Ended(download) => {
            let (object, text) = ended(&download, detach)?;
            context.style.done(&object, &text);
            Ok(Exit::Done)
        }
    }
}

/// What is printed about a download that ended, or was only to be started.
fn ended(download: &pb::Download, detach: bool) -> Result<(Value, String), Failure> {
    let (name, group) = (render::name(&download.name), render::name(&download.group_id));
    let (size, place) = (units::size(download.size), render::name(&download.destination));
    match download.state() {
        pb::DownloadState::Complete => {
            let from = render::given(&download.sources) + &render::taken(download.taken_bytes);
            let text = format!("the download of {name} from {group} is complete: {size}{from} at {place}");
            Ok((render::download_json(download), text))
        }
        pb::DownloadState::Stopped => Err(Failure::of(
            Reason::Stopped,
            format!("the download of {name} was stopped; `peer resume-download` continues it"),
        )),
        pb::DownloadState::Failed => {
            let reason = Reason::from_text(&download.reason).unwrap_or(Reason::Internal);
            Err(Failure::of(reason, format!("the download of {name} failed: {}", download.cause)))
        }
        _ if detach => {
            let text = format!(
                "downloading {name} of {group} ({size}) to {place}; `peer show-downloads` shows the progress"
            );
            Ok((render::download_json(download), text))
        }
        _ => Err(Failure::daemon_ended()),
    }
}

fn is_disk_full(download: &pb::Download) -> bool {
    download.state() == pb::DownloadState::Stalled && download.reason == Reason::DiskFull.as_str()
}

/// The wait for room could last for ever, and the user has to make the room. So the verb ends, and the
/// download does not.
fn disk_full(download: &pb::Download) -> Failure {
    let (name, percent) = (render::name(&download.name), render::percent(download));
    let place = render::name(&download.destination);
    let message = format!(
        "the download of {name} is paused at {percent}%: {} at {place}; free some space to continue it, or \
         stop it with `peer stop-download`",
        download.cause
    );
    Failure::of(Reason::DiskFull, message)
}

/// The failure of a download that is not done in time. The reason is that no source was found, that every
/// source sent bad pieces, or just that the download takes longer.
fn timed_out(download: &pb::Download) -> Failure {
    let name = render::name(&download.name);
    let goes_on = match download.cause.as_str() {
        "" => "the daemon keeps trying".to_owned(),
        cause => format!("{cause}. The daemon keeps trying"),
    };
    if download.all_banned {
        Failure::of(Reason::Corrupt, format!("every source of {name} sent bad pieces; {goes_on}"))
    } else if !download.had_source && download.size > 0 {
        Failure::of(Reason::NoSource, format!("no usable source of {name} was found in time; {goes_on}"))
    } else {
        let percent = render::percent(download);
        Failure::timed_out(format!("the download of {name} has reached {percent}%; {goes_on}"))
    }
}

pub(super) async fn show(context: &Context, follow: bool) -> Result<(), Failure> {
    let request = pb::ListDownloadsRequest { follow };
    let mut answers = context.daemon().await?.control().list_downloads(request).await?.into_inner();
    let live = context.style.live_result().filter(|_| follow);
    let Some(live) = live else {
        while let Some(pb::ListDownloadsResponse { downloads }) = answers.message().await? {
            let text = render::downloads_text(&downloads, usize::MAX);
            context.style.painted(&render::downloads_json(&downloads), &text);
        }
        return Ok(());
    };
    let mut shown = Vec::new();
    loop {
        tokio::select! {
            answer = answers.message() => match answer? {
                Some(answer) => shown = answer.downloads,
                None => return Ok(()),
            },
            () = live.resized() => {}
        }
        live.show(|width| render::downloads_text(&shown, width));
    }
}

fn named(file: &GroupFile) -> Option<pb::FileName> {
    Some(pb::FileName { group_id: file.group.clone(), name: file.name.clone() })
}

pub(super) async fn explain(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::ExplainRequest { file: named(file) };
    let answer = context.daemon().await?.control().explain(request).await?.into_inner();
    let object = json!({
        "group": file.group,
        "name": file.name,
        "verdict": answer.verdict,
        "summary": answer.summary,
        "evidence": answer.evidence,
    });
    let facts: String = answer.evidence.iter().map(|fact| format!("- {fact}\n")).collect();
    context.style.result(&object, &format!("{}\n{facts}", answer.summary));
    Ok(())
}

pub(super) async fn stop(
    context: &Context,
    file: &GroupFile,
    discard: bool,
    leaving: &Leaving,
) -> Result<(), Failure> {
    let request = pb::StopDownloadRequest { file: named(file), discard };
    let daemon = context.daemon().await?;
    leaving::check(context, &daemon, leaving, Some(&file.group), Some(&file.name)).await?;
    daemon.control().stop_download(request).await?;
    let kept = if discard { "the downloaded pieces were deleted" } else { "the verified pieces were kept" };
    let text = format!("the download of {} was stopped; {kept}", render::name(&file.name));
    context.style.done(&json!({"group": file.group, "name": file.name, "discarded": discard}), &text);
    Ok(())
}

pub(super) async fn clear(context: &Context) -> Result<(), Failure> {
    let request = pb::ClearDownloadsRequest {};
    let cleared = context.daemon().await?.control().clear_downloads(request).await?.into_inner().cleared;
    let text = match cleared {
        0 => "no download was finished".to_owned(),
        some => {
            format!(
                "{} removed from the list; files and shares were kept",
                units::count(some as usize, "finished download")
            )
        }
    };
    context.style.done(&json!({"cleared": cleared}), &text);
    Ok(())
}

pub(super) async fn resume(context: &Context, file: &GroupFile) -> Result<(), Failure> {
    let request = pb::ResumeDownloadRequest { file: named(file) };
    context.daemon().await?.control().resume_download(request).await?;
    let text = format!("the download of {} is running", render::name(&file.name));
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
