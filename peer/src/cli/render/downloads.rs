//! Downloads, as text and as JSON.

use proto::pb;
use serde_json::{Value, json};

use super::{name, optional};
use crate::units;

/// Sources that are shown of one download.
const MOST_SOURCES: usize = 12;

/// A download's state, in one word.
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

/// A download as an object.
pub(in crate::cli) fn download_json(download: &pb::Download) -> Value {
    let source = |source: &pb::DownloadSource| {
        json!({
            "peer_id": source.peer_id,
            "user": source.username,
            "bytes": source.bytes,
            "rate": source.rate,
            "bad_pieces": source.bad_pieces,
            "state": source_state(source.state()),
        })
    };
    let sources: Vec<_> = download.sources.iter().map(source).collect();
    json!({
        "group": download.group_id,
        "name": download.name,
        "state": state(download.state()),
        "done_bytes": download.done_bytes,
        "size": download.size,
        "rate": download.rate,
        "eta_seconds": download.eta_seconds,
        "sources": sources,
        "cause": optional(&download.cause),
        "reason": optional(&download.reason),
        "destination": download.destination,
    })
}

fn download_line(download: &pb::Download) -> String {
    let now = download.state();
    let mut out = format!("[{}] [{}] {}", mark(now), name(&download.group_id), name(&download.name));
    let (done, size) = (units::size(download.done_bytes), units::size(download.size));
    if now == pb::DownloadState::Complete {
        return out + &format!("  {size}  {}", name(&download.destination));
    }
    out += &format!("  {}%  {done} of {size}", percent(download));
    if now == pb::DownloadState::Downloading {
        let sources = units::count(download.sources.len(), "source");
        let eta = download.eta_seconds.map(|eta| format!("  eta {}", units::seconds(eta)));
        out += &format!("  {}{}  {sources}", units::rate(download.rate), eta.unwrap_or_default());
    } else {
        let cause = if download.cause.is_empty() { "" } else { ": " };
        out += &format!("  {}{cause}{}", state(now), name(&download.cause));
    }
    out
}

/// What each source gives, a line for each.
fn sources_text(sources: &[pb::DownloadSource]) -> String {
    let width = sources.iter().map(|source| source.username.chars().count()).max().unwrap_or_default();
    let line = |source: &pb::DownloadSource| {
        let bad = match source.bad_pieces {
            0 => String::new(),
            bad => format!(", {}", units::count(bad as usize, "bad piece")),
        };
        let short = source.peer_id.get(..8).unwrap_or(&source.peer_id);
        let (bytes, rate) = (units::size(source.bytes), units::rate(source.rate));
        let (user, doing) = (&source.username, source_state(source.state()));
        format!("\n    {user:<width$} ({short})  {bytes:>10}  {rate:>12}  {doing}{bad}")
    };
    let mut out: String = sources.iter().take(MOST_SOURCES).map(line).collect();
    if let Some(more) = sources.len().checked_sub(MOST_SOURCES).filter(|more| *more > 0) {
        out += &format!("\n    and {more} more");
    }
    out
}

/// A download as a line; while it runs, its pieces and what each source gives beneath.
pub(in crate::cli) fn download_text(download: &pb::Download) -> String {
    let mut out = download_line(download);
    if matches!(download.state(), pb::DownloadState::Downloading | pb::DownloadState::Stalled) {
        if !download.map.is_empty() {
            out += &format!("\n    |{}|", pieces(&download.map));
        }
        out += &sources_text(&download.sources);
    }
    out
}

/// Who gave how much of a download that is complete: ` (19.1 MiB from ann, 9.5 MiB from bob)`.
pub(in crate::cli) fn given(sources: &[pb::DownloadSource]) -> String {
    let mut givers: Vec<_> = sources.iter().filter(|source| source.bytes > 0).collect();
    givers.sort_unstable_by_key(|source| std::cmp::Reverse(source.bytes));
    let one =
        |source: &&pb::DownloadSource| format!("{} from {}", units::size(source.bytes), source.username);
    let mut words: Vec<_> = givers.iter().take(MOST_SOURCES).map(one).collect();
    if givers.len() > MOST_SOURCES {
        words.push(format!("the rest from {} more", givers.len() - MOST_SOURCES));
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// How much of a download is there, in whole percent; 100 only when all is.
pub(in crate::cli) fn percent(download: &pb::Download) -> u64 {
    match download.size {
        0 => 100,
        size => u64::try_from(u128::from(download.done_bytes) * 100 / u128::from(size)).unwrap_or(100),
    }
}

/// `show-downloads`.
pub(in crate::cli) fn downloads(downloads: &[pb::Download]) -> (Value, String) {
    let all: Vec<_> = downloads.iter().map(download_json).collect();
    let text = match downloads {
        [] => "no downloads".to_owned(),
        some => some.iter().map(download_text).collect::<Vec<_>>().join("\n"),
    };
    (json!({"downloads": all}), text)
}

/// Pieces as a bar: how much of each stretch is verified.
fn pieces(map: &[u8]) -> String {
    const STEPS: [char; 5] = [' ', '.', ':', '+', '#'];
    map.iter().map(|share| STEPS[usize::from(*share) * (STEPS.len() - 1) / 255]).collect()
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
        assert_eq!(download_text(&running), format!("{line}\n    |#: |\n{source}"));
        let (_, complete) = downloads(&[download(pb::DownloadState::Complete)]);
        assert_eq!(complete, "[C] [g1] movie.mp4  1.0 GiB  /out/movie.mp4");
        let failed = pb::Download { cause: "no space left".into(), ..download(pb::DownloadState::Failed) };
        assert_eq!(
            download_text(&failed),
            "[F] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  failed: no space left"
        );
        let stalled = pb::Download {
            cause: "no source is known".into(),
            sources: vec![],
            map: vec![0].into(),
            ..download(pb::DownloadState::Stalled)
        };
        assert_eq!(
            download_text(&stalled),
            "[W] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  stalled: no source is known\n    | |"
        );
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
        let (value, _) = downloads(&[download(pb::DownloadState::Downloading)]);
        let one = &value["downloads"][0];
        for key in ["group", "name", "state", "done_bytes", "size", "rate", "eta_seconds", "sources", "cause"]
        {
            assert!(one.get(key).is_some(), "{key}");
        }
        let keys: Vec<_> = one["sources"][0].as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["bad_pieces", "bytes", "peer_id", "rate", "state", "user"]);
        assert_eq!((&one["state"], &one["cause"]), (&json!("downloading"), &Value::Null));
    }

    #[test]
    fn every_state_has_its_word() {
        let words: Vec<_> = (1..=7).filter_map(|n| pb::DownloadState::try_from(n).ok()).map(state).collect();
        assert_eq!(words, ["queued", "downloading", "stalled", "verifying", "complete", "stopped", "failed"]);
    }
}
