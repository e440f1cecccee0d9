//! Downloads, as text and as JSON.

use proto::pb;
use serde_json::{Value, json};

use super::{fit, name, optional};
use crate::{paths, units};

/// The most sources that are shown of one download.
const MOST_SOURCES: usize = 12;

/// Returns a download's state as one word.
pub(in crate::cli) fn state(state: pb::DownloadState) -> &'static str {
    match state {
        pb::DownloadState::Unspecified | pb::DownloadState::Queued => "queued",
        pb::DownloadState::Downloading => "downloading",
        pb::DownloadState::Stalled => "stalled",
        pb::DownloadState::Verifying => "verifying",
        pb::DownloadState::Complete => "complete",
        pb::DownloadState::Stopped => "stopped",
        pb::DownloadState::Failed => "failed",
    }
}

fn mark(state: pb::DownloadState) -> char {
    match state {
        pb::DownloadState::Unspecified | pb::DownloadState::Queued => 'Q',
        pb::DownloadState::Downloading => 'D',
        pb::DownloadState::Stalled => 'W',
        pb::DownloadState::Verifying => 'V',
        pb::DownloadState::Complete => 'C',
        pb::DownloadState::Stopped => 'S',
        pb::DownloadState::Failed => 'F',
    }
}

fn source_state(state: pb::SourceState) -> &'static str {
    match state {
        pb::SourceState::Unspecified | pb::SourceState::Connecting => "connecting",
        pb::SourceState::Idle => "idle",
        pb::SourceState::Queued => "queued",
        pb::SourceState::Sending => "sending",
        pb::SourceState::Backoff => "backoff",
        pb::SourceState::Banned => "banned",
    }
}

/// Returns a download as a JSON object.
pub(in crate::cli) fn download_json(download: &pb::Download) -> Value {
    let source = |source: &pb::DownloadSource| {
        json!({
            "peer_id": source.peer_id,
            "user": source.username,
            "bytes": source.bytes,
            "rate": source.rate,
            "bad_pieces": source.bad_pieces,
            "state": source_state(source.state()),
            "cause": optional(&source.cause),
        })
    };
    let sources: Vec<_> = download.sources.iter().map(source).collect();
    json!({
        "group": download.group_id,
        "name": download.name,
        "state": state(download.state()),
        "done_bytes": download.done_bytes,
        "size": download.size,
        "files": download.files,
        "done_files": download.done_files,
        "taken_bytes": download.taken_bytes,
        "rate": download.rate,
        "eta_seconds": download.eta_seconds,
        "sources": sources,
        "cause": optional(&download.cause),
        "reason": optional(&download.reason),
        "verdict": optional(&download.verdict),
        "why": optional(&download.why),
        "destination": download.destination,
        "destination_base64": paths::exact_bytes(&download.destination_bytes),
    })
}

/// The columns that the name keeps, at least, when a line must be shortened.
const LEAST_NAME: usize = 8;

/// A download as one line of at most `width` columns. What matters least is left out first, and the name is
/// shortened in its middle.
pub(in crate::cli) fn download_line(download: &pb::Download, width: usize) -> String {
    let now = download.state();
    let whole = name(&download.name);
    let mark = format!("[{}] ", mark(now));
    let group = format!("[{}] ", name(&download.group_id));
    let (done, size) = (units::size(download.done_bytes), units::size(download.size));
    let of_size = format!("  {done} of {size}");
    let of_files = match (download.done_files, download.files) {
        (Some(done), Some(all)) => format!("  {done} of {}", units::count(all as usize, "file")),
        _ => String::new(),
    };
    let percent = format!("  {}%", percent(download));
    let eta = download.eta_seconds.map(|eta| format!("  eta {}", units::seconds(eta))).unwrap_or_default();
    // Each part has a rank. The parts with the highest rank are left out first.
    let parts = match now {
        pb::DownloadState::Complete => {
            vec![(1, format!("  {size}")), (4, format!("  {}", name(&download.destination)))]
        }
        pb::DownloadState::Downloading => vec![
            (0, percent),
            (4, of_size),
            (5, of_files),
            (1, format!("  {}", units::rate(download.rate))),
            (2, eta),
            (5, format!("  {}", units::count(download.sources.len(), "source"))),
            (6, if download.why.is_empty() { String::new() } else { format!("  {}", name(&download.why)) }),
        ],
        _ => vec![(0, percent), (4, of_size), (5, of_files), (1, format!("  {}", state(now)))],
    };
    let cause = match download.cause.as_str() {
        _ if now == pb::DownloadState::Complete || now == pb::DownloadState::Downloading => String::new(),
        "" => String::new(),
        cause => format!(": {}", name(cause)),
    };
    let least = fit::columns(&whole).min(LEAST_NAME);
    let used = |rank: u8| {
        let kept =
            parts.iter().filter(|(of, _)| *of <= rank).map(|(_, part)| fit::columns(part)).sum::<usize>();
        fit::columns(&mark) + kept + if rank >= 3 { fit::columns(&group) } else { 0 }
    };
    let rank = (0..=6).rev().find(|&rank| used(rank) + least <= width).unwrap_or(0);
    let room = width.saturating_sub(used(rank));
    let for_name = if cause.is_empty() { room } else { (room / 2).max(least) };
    let mut out = mark.clone();
    if rank >= 3 {
        out += &group;
    }
    out += &fit::shorten(&whole, for_name);
    parts.iter().filter(|(of, _)| *of <= rank).for_each(|(_, part)| out += part);
    let left = width.saturating_sub(fit::columns(&out));
    // A few letters of a cause say nothing.
    if left >= fit::columns(&cause).min(LEAST_NAME) {
        out += &fit::clip(&cause, left);
    }
    out
}

/// Shows what each source sends, one line for each source.
fn sources_text(sources: &[pb::DownloadSource]) -> String {
    let width = sources.iter().map(|source| fit::columns(&name(&source.username))).max().unwrap_or_default();
    let line = |source: &pb::DownloadSource| {
        let bad = match source.bad_pieces {
            0 => String::new(),
            bad => format!(", {}", units::count(bad as usize, "bad piece")),
        };
        let short = source.peer_id.get(..8).unwrap_or(&source.peer_id);
        let (bytes, rate) = (units::size(source.bytes), units::rate(source.rate));
        let (user, doing) = (fit::pad(&name(&source.username), width), source_state(source.state()));
        format!("\n    {user} ({short})  {bytes:>10}  {rate:>12}  {doing}{bad}")
    };
    let mut out: String = sources.iter().take(MOST_SOURCES).map(line).collect();
    if let Some(more) = sources.len().checked_sub(MOST_SOURCES).filter(|more| *more > 0) {
        out += &format!("\n    and {more} more");
    }
    out
}

/// Whether the pieces of a download are shown.
fn has_map(download: &pb::Download) -> bool {
    matches!(download.state(), pb::DownloadState::Downloading | pb::DownloadState::Stalled)
        && !download.map.is_empty()
}

/// Shows a download as a line of at most `width` columns. While it runs, its pieces and its sources follow on
/// further lines.
fn download_text(download: &pb::Download, width: usize) -> String {
    let mut out = download_line(download, width);
    if matches!(download.state(), pb::DownloadState::Downloading | pb::DownloadState::Stalled) {
        if has_map(download) {
            out += &format!("\n    |{}|", pieces(&download.map, width.saturating_sub(6)));
        }
        out += &sources_text(&download.sources);
    }
    out
}

/// Says what the marks of the pieces mean.
fn legend(width: usize) -> &'static str {
    if width < 30 { "\n    # all +:. some" } else { "\n    pieces: # all  + : . some" }
}

/// The view of one download while a verb waits for it.
pub(in crate::cli) fn download_view(download: &pb::Download, width: usize) -> String {
    let legend = if has_map(download) { legend(width) } else { "" };
    format!("{}{legend}", download_text(download, width))
}

/// Shows how much each user sent of a complete download: ` (19.1 MiB from ann, 9.5 MiB from bob)`.
pub(in crate::cli) fn given(sources: &[pb::DownloadSource]) -> String {
    let mut givers: Vec<_> = sources.iter().filter(|source| source.bytes > 0).collect();
    givers.sort_unstable_by_key(|source| std::cmp::Reverse(source.bytes));
    let one = |source: &&pb::DownloadSource| {
        format!("{} from {}", units::size(source.bytes), name(&source.username))
    };
    let mut words: Vec<_> = givers.iter().take(MOST_SOURCES).map(one).collect();
    if givers.len() > MOST_SOURCES {
        words.push(format!("the rest from {} more", givers.len() - MOST_SOURCES));
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// Shows how much of a complete download was taken from a copy here.
pub(in crate::cli) fn taken(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(", {} of it from a copy here,", units::size(bytes)) }
}

/// Returns how much of a download is done, in whole percent. It is 100 only when the download has all bytes.
pub(in crate::cli) fn percent(download: &pb::Download) -> u64 {
    match download.size {
        0 => 100,
        size => u64::try_from(u128::from(download.done_bytes) * 100 / u128::from(size)).unwrap_or(100),
    }
}

/// `show-downloads`, as an object.
pub(in crate::cli) fn downloads_json(downloads: &[pb::Download]) -> Value {
    json!({"downloads": downloads.iter().map(download_json).collect::<Vec<_>>()})
}

/// `show-downloads`, as text whose lines have at most `width` columns.
pub(in crate::cli) fn downloads_text(downloads: &[pb::Download], width: usize) -> String {
    let legend = if downloads.iter().any(has_map) { legend(width) } else { "" };
    match downloads {
        [] => "no downloads".to_owned(),
        some => some.iter().map(|one| download_text(one, width)).collect::<Vec<_>>().join("\n") + legend,
    }
}

/// Shows the pieces as a bar of at most `most` characters. Each character says how much of its range of pieces
/// is verified.
fn pieces(map: &[u8], most: usize) -> String {
    const STEPS: [char; 5] = [' ', '.', ':', '+', '#'];
    let cells = map.len().min(most);
    let share = |cell: usize| {
        let range = &map[cell * map.len() / cells..(cell + 1) * map.len() / cells];
        range.iter().map(|share| usize::from(*share)).sum::<usize>() / range.len()
    };
    (0..cells).map(|cell| STEPS[share(cell) * (STEPS.len() - 1) / 255]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download(state: pb::DownloadState) -> pb::Download {
        pb::Download {
            group_id: "g1".into(),
            name: "movie.mp4".into(),
            state: state.into(),
            done_bytes: 512 << 20,
            size: 1 << 30,
            rate: 12 << 20,
            eta_seconds: Some(43),
            sources: vec![pb::DownloadSource {
                peer_id: "abcdefghijkl".into(),
                username: "bob".into(),
                bytes: 500 << 20,
                rate: 12 << 20,
                bad_pieces: 1,
                state: pb::SourceState::Sending.into(),
                cause: String::new(),
            }],
            destination: "/out/movie.mp4".into(),
            map: vec![255, 128, 0].into(),
            ..Default::default()
        }
    }

    #[test]
    fn downloads_as_text() {
        let line = "[D] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  12.0 MiB/s  eta 43s  1 source";
        let source = "    bob (abcdefgh)   500.0 MiB    12.0 MiB/s  sending, 1 bad piece";
        let running = download(pb::DownloadState::Downloading);
        let all = |download: &pb::Download| download_text(download, usize::MAX);
        assert_eq!(all(&running), format!("{line}\n    |#: |\n{source}"));
        let view = format!("{line}\n    |#: |\n{source}\n    pieces: # all  + : . some");
        assert_eq!(download_view(&running, 200), view);
        let complete = downloads_text(&[download(pb::DownloadState::Complete)], usize::MAX);
        assert_eq!(complete, "[C] [g1] movie.mp4  1.0 GiB  /out/movie.mp4");
        let failed = pb::Download { cause: "no space left".into(), ..download(pb::DownloadState::Failed) };
        assert_eq!(all(&failed), "[F] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  failed: no space left");
        let stalled = pb::Download {
            cause: "no source is known".into(),
            sources: vec![],
            map: vec![0].into(),
            ..download(pb::DownloadState::Stalled)
        };
        assert_eq!(
            all(&stalled),
            "[W] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  stalled: no source is known\n    | |"
        );
    }

    #[test]
    fn a_line_fits_every_terminal() {
        let long = "日本語日本語日本語日本語 of the summer e\u{301}e\u{301} in twenty-four parts.mp4";
        for state in (1..=7).filter_map(|n| pb::DownloadState::try_from(n).ok()) {
            for (name, cause) in [("movie.mp4", ""), (long, ""), (long, "no source answers: firewall?")] {
                let one = pb::Download {
                    name: name.into(),
                    cause: cause.into(),
                    map: vec![255; 64].into(),
                    ..download(state)
                };
                for width in 20..=200 {
                    let line = download_line(&one, width);
                    let columns = fit::columns(&line);
                    assert!(columns <= width && !line.contains('\n'), "{columns} of {width}: {line}");
                    assert!(line.starts_with('[') && line.contains("mov") || line.contains("日本"), "{line}");
                    assert!(state == pb::DownloadState::Complete || line.contains("50%"), "{width}: {line}");
                    let view = download_view(&one, width);
                    let map = view.lines().filter(|line| line.contains('|') || line.contains(". some"));
                    assert!(map.clone().all(|line| fit::columns(line) <= width), "{width}: {view}");
                    assert_eq!(map.count(), if has_map(&one) { 2 } else { 0 });
                }
            }
        }
        let narrow = download(pb::DownloadState::Downloading);
        assert_eq!(download_line(&narrow, 20), "[D] movie.mp4  50%");
        assert_eq!(download_line(&narrow, 50), "[D] [g1] movie.mp4  50%  12.0 MiB/s  eta 43s");
        assert_eq!(pieces(&[255, 255, 0, 0, 255, 128], 3), "# :");
    }

    #[test]
    fn many_sources_do_not_fill_the_screen() {
        let one = download(pb::DownloadState::Downloading).sources[0].clone();
        let text = sources_text(&vec![one.clone(); 40]);
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), MOST_SOURCES + 1);
        assert!(text.ends_with("and 28 more"), "{text}");
        assert!(given(&vec![one; 40]).ends_with("500.0 MiB from bob, the rest from 28 more)"));
        assert_eq!(given(&[]), "");
    }

    #[test]
    fn json_keys_are_those_that_scripts_rely_on() {
        let value = downloads_json(&[download(pb::DownloadState::Downloading)]);
        let one = &value["downloads"][0];
        for key in ["group", "name", "state", "done_bytes", "size", "rate", "eta_seconds", "sources", "cause"]
        {
            assert!(one.get(key).is_some(), "{key}");
        }
        let keys: Vec<_> = one["sources"][0].as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["bad_pieces", "bytes", "cause", "peer_id", "rate", "state", "user"]);
        assert_eq!((&one["state"], &one["cause"]), (&json!("downloading"), &Value::Null));
    }

    #[test]
    fn every_state_has_its_word() {
        let words: Vec<_> = (1..=7).filter_map(|n| pb::DownloadState::try_from(n).ok()).map(state).collect();
        assert_eq!(words, ["queued", "downloading", "stalled", "verifying", "complete", "stopped", "failed"]);
    }
}
