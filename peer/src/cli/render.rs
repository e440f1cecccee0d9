//! All that is printed: results on standard output as text or JSON, notes and errors on standard error.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::pb;
use serde_json::{Value, json};

use super::exit::Failure;
use crate::units;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// One JSON object a result.
    pub(super) json: bool,
    /// No notes, no progress.
    pub(super) quiet: bool,
}

/// Writes a line to standard output. A reader that has left is no error: there is nobody to tell.
pub(super) fn line(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(0);
    }
}

/// Writes a note for people to standard error.
pub(super) fn note(text: &str) {
    // There is nowhere to tell that it can't be told.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

impl Style {
    /// Prints a result: the object, or what people read. Nothing is printed for an empty text.
    pub(super) fn result(self, object: &Value, text: &str) {
        if self.json {
            line(&object.to_string());
        } else if !text.is_empty() {
            line(text.trim_end_matches('\n'));
        }
    }

    /// Prints that something was done: quiet people know by the exit code.
    pub(super) fn done(self, object: &Value, text: &str) {
        self.result(object, if self.quiet { "" } else { text });
    }

    /// Prints a failure.
    pub(super) fn failure(self, failure: &Failure) {
        if self.json {
            let Failure { code, reason, message, .. } = failure;
            note(&json!({"error": {"code": code, "reason": reason, "message": message}}).to_string());
        } else {
            note(&format!("peer: {}", escape(&failure.message)));
        }
    }

    /// A bar on standard error, if that is a terminal; else one that is not seen.
    pub(super) fn bar(self, bytes: u64) -> ProgressBar {
        let seen = io::stderr().is_terminal() && !self.json && !self.quiet;
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let style =
            ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {percent}% {wide_msg}");
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
    }
}

/// Text that can't do anything to a terminal: what is not plain is written as its escape.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        let harmless = c == '\n' || !(c.is_control() || is_direction(c));
        if harmless {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
        out
    })
}

/// A name on one line.
pub(super) fn name(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

fn is_direction(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A moment as RFC 3339, or nothing.
pub(super) fn time(at: Option<prost_types::Timestamp>) -> Value {
    let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, 0).ok());
    at.map_or(Value::Null, |at| at.to_string().into())
}

fn time_text(at: Option<prost_types::Timestamp>) -> String {
    time(at).as_str().map(str::to_owned).unwrap_or_else(|| "-".into())
}

/// Empty text is no value.
fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// Columns, left-aligned but for those that hold numbers, separated by two spaces.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].len()]).max().unwrap_or_default()
        })
        .collect();
    let write = |out: &mut String, cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, width) in cells.zip(&widths) {
            let pad = width - cell.chars().count();
            row.extend([cell, &" ".repeat(pad), "  "]);
        }
        out.push_str(row.trim_end());
        out.push('\n');
    };
    let mut out = String::new();
    write(&mut out, &mut head.iter().copied());
    for row in rows {
        write(&mut out, &mut row.iter().map(String::as_str));
    }
    out
}

/// What a user is to a group, in one word.
pub(super) fn standing(standing: pb::Standing) -> &'static str {
    match standing {
        pb::Standing::Unspecified | pb::Standing::None => "none",
        pb::Standing::Requested => "requested",
        pb::Standing::Member => "member",
        pb::Standing::Owner => "owner",
    }
}

/// `list-groups`.
pub(super) fn groups(groups: &[pb::Group]) -> (Value, String) {
    let object = |group: &pb::Group| {
        json!({
            "id": group.group_id,
            "owner": group.owner,
            "members": group.members,
            "standing": standing(group.standing()),
        })
    };
    let row = |group: &pb::Group| {
        vec![
            name(&group.group_id),
            group.owner.clone(),
            group.members.to_string(),
            standing(group.standing()).to_owned(),
        ]
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    let all: Vec<_> = groups.iter().map(object).collect();
    (json!({"groups": all}), listing("no groups", &["GROUP", "OWNER", "MEMBERS", "YOU"], &rows))
}

/// `list-requests`.
pub(super) fn requests(requests: &[pb::JoinRequest]) -> (Value, String) {
    let all: Vec<_> = requests
        .iter()
        .map(|request| json!({"user": request.username, "since": time(request.since)}))
        .collect();
    let rows: Vec<_> =
        requests.iter().map(|request| vec![request.username.clone(), time_text(request.since)]).collect();
    (json!({"requests": all}), listing("nobody asks", &["USER", "SINCE"], &rows))
}

/// `list-members`.
pub(super) fn members(members: &[pb::Member]) -> (Value, String) {
    let object = |member: &pb::Member| json!({"user": member.username, "role": standing(member.role()), "since": time(member.since)});
    let row = |member: &pb::Member| {
        vec![member.username.clone(), standing(member.role()).to_owned(), time_text(member.since)]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    let all: Vec<_> = members.iter().map(object).collect();
    (json!({"members": all}), listing("no members", &["USER", "ROLE", "SINCE"], &rows))
}

/// `list-files`.
pub(super) fn files(files: &[pb::File]) -> (Value, String) {
    let header = |file: &pb::File| file.header.clone().unwrap_or_default();
    let object = |file: &pb::File| {
        json!({
            "name": header(file).name,
            "size": header(file).length,
            "seeders": file.seeders,
            "leechers": file.leechers,
            "publisher": file.publisher,
            "since": time(file.since),
            "sha1": hex(&header(file).sha1),
            "blake3": hex(&header(file).blake3),
        })
    };
    let row = |file: &pb::File| {
        vec![
            name(&header(file).name),
            units::size(header(file).length),
            file.seeders.to_string(),
            file.leechers.to_string(),
            file.publisher.clone(),
            time_text(file.since),
        ]
    };
    let rows: Vec<_> = files.iter().map(row).collect();
    let all: Vec<_> = files.iter().map(object).collect();
    let head = ["NAME", "SIZE", "SEEDERS", "LEECHERS", "PUBLISHER", "SINCE"];
    (json!({"files": all}), listing("no files", &head, &rows))
}

/// `list-shares`.
pub(super) fn shares(shares: &[pb::Share]) -> (Value, String) {
    let object = |share: &pb::Share| {
        json!({
            "group": share.group_id,
            "name": share.name,
            "path": share.path,
            "size": share.size,
            "done_bytes": share.done_bytes,
            "uploaded_bytes": share.uploaded_bytes,
            "cause": optional(&share.cause),
        })
    };
    let row = |share: &pb::Share| {
        let offered = match share.cause.as_str() {
            "" => units::size(share.done_bytes),
            cause => format!("not offered: {}", name(cause)),
        };
        vec![
            name(&share.group_id),
            name(&share.name),
            units::size(share.size),
            offered,
            units::size(share.uploaded_bytes),
            name(&share.path),
        ]
    };
    let rows: Vec<_> = shares.iter().map(row).collect();
    let all: Vec<_> = shares.iter().map(object).collect();
    let head = ["GROUP", "NAME", "SIZE", "OFFERED", "UPLOADED", "PATH"];
    (json!({"shares": all}), listing("nothing is shared", &head, &rows))
}

fn listing(nothing: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() { nothing.to_owned() } else { table(head, rows) }
}

/// A download's state, in one word.
pub(super) fn state(state: pb::DownloadState) -> &'static str {
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
pub(super) fn download_json(download: &pb::Download) -> Value {
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

/// A download as a line, its sources beneath while it runs.
pub(super) fn download_text(download: &pb::Download) -> String {
    let now = download.state();
    let mut out = format!("[{}] [{}] {}", mark(now), name(&download.group_id), name(&download.name));
    let (done, size) = (units::size(download.done_bytes), units::size(download.size));
    let _ = match now {
        pb::DownloadState::Complete => write!(out, "  {size}  {}", name(&download.destination)),
        pb::DownloadState::Stopped | pb::DownloadState::Failed => write!(out, "  {}", state(now)),
        _ => write!(out, "  {}%  {done} of {size}", percent(download)),
    };
    let live = matches!(now, pb::DownloadState::Downloading | pb::DownloadState::Stalled);
    if live {
        let _ = write!(out, "  {}", units::rate(download.rate));
        if let Some(eta) = download.eta_seconds {
            let _ = write!(out, "  eta {}", units::seconds(eta));
        }
        let _ = write!(out, "  {} sources", download.sources.len());
    }
    if !download.cause.is_empty() {
        let _ = write!(out, "  {}", name(&download.cause));
    }
    if live {
        for source in &download.sources {
            let bad = match source.bad_pieces {
                0 => String::new(),
                bad => format!(", {bad} bad pieces"),
            };
            let (short, user) = (source.peer_id.get(..8).unwrap_or(&source.peer_id), &source.username);
            let (bytes, rate) = (units::size(source.bytes), units::rate(source.rate));
            let _ =
                write!(out, "\n    {user} ({short}): {bytes}, {rate}, {}{bad}", source_state(source.state()));
        }
    }
    out
}

/// How much of a download is there, in whole percent; 100 only when all is.
pub(super) fn percent(download: &pb::Download) -> u64 {
    match download.size {
        0 => 100,
        size => u64::try_from(u128::from(download.done_bytes) * 100 / u128::from(size)).unwrap_or(100),
    }
}

/// `show-downloads`.
pub(super) fn downloads(downloads: &[pb::Download]) -> (Value, String) {
    let all: Vec<_> = downloads.iter().map(download_json).collect();
    let text = match downloads {
        [] => "no downloads".to_owned(),
        some => some.iter().map(download_text).collect::<Vec<_>>().join("\n"),
    };
    (json!({"downloads": all}), text)
}

/// What stands beside a download's bar.
pub(super) fn bar_message(download: &pb::Download) -> String {
    let sending = download.sources.iter().filter(|source| source.state() == pb::SourceState::Sending).count();
    let eta = download.eta_seconds.map(|eta| format!(", eta {}", units::seconds(eta))).unwrap_or_default();
    match download.state() {
        pb::DownloadState::Downloading => {
            format!(
                "{}{eta}, {sending} of {} sources |{}|",
                units::rate(download.rate),
                download.sources.len(),
                pieces(&download.map)
            )
        }
        other if download.cause.is_empty() => state(other).to_owned(),
        other => format!("{}: {}", state(other), name(&download.cause)),
    }
}

/// Pieces as a bar: how much of each stretch is verified.
fn pieces(map: &[u8]) -> String {
    const STEPS: [char; 5] = [' ', '.', ':', '+', '#'];
    map.iter().map(|share| STEPS[usize::from(*share) * (STEPS.len() - 1) / 255]).collect()
}

/// `status` and `whoami`.
pub(super) fn status(status: &pb::GetStatusResponse) -> (Value, String) {
    let object = json!({
        "user": optional(&status.username),
        "peer_id": optional(&status.peer_id),
        "tls_name": optional(&status.tls_name),
        "tracker": status.tracker,
        "tracker_connected": status.tracker_connected,
        "listen": status.listen,
        "advertise": optional(&status.advertise),
        "upload_rate": status.upload_rate,
        "download_rate": status.download_rate,
        "upload_limit": status.upload_limit,
        "download_limit": status.download_limit,
        "shares": status.shares,
        "downloads": status.downloads,
        "uploads_active": status.uploads_active,
        "uploads_waiting": status.uploads_waiting,
        "session_expires_at": time(status.session_expires_at),
        "certificate_expires_at": time(status.certificate_expires_at),
        "pid": status.pid,
        "version": status.version,
    });
    let user = if status.username.is_empty() { "nobody is logged in" } else { &status.username };
    let connected = if status.tracker_connected { "connected" } else { "not connected" };
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { name(text) };
    let rows = [
        ("user", user.to_owned()),
        ("peer id", or_dash(&status.peer_id)),
        ("tls name", or_dash(&status.tls_name)),
        ("tracker", format!("{}, {connected}", status.tracker)),
        ("listen", status.listen.clone()),
        ("advertise", or_dash(&status.advertise)),
        ("upload", rate_text(status.upload_rate, status.upload_limit)),
        ("download", rate_text(status.download_rate, status.download_limit)),
        ("uploads", format!("{} running, {} waiting", status.uploads_active, status.uploads_waiting)),
        ("shares", status.shares.to_string()),
        ("downloads", format!("{} unfinished", status.downloads)),
        ("session until", time_text(status.session_expires_at)),
        ("certificate until", time_text(status.certificate_expires_at)),
        ("daemon", format!("pid {}, version {}", status.pid, status.version)),
    ];
    let text = rows.iter().map(|(key, value)| format!("{key:<18} {value}\n")).collect();
    (object, text)
}

fn rate_text(rate: u64, limit: u64) -> String {
    format!("{}, limit {}", units::rate(rate), units::limit(limit))
}

/// `doctor`.
pub(super) fn checks(checks: &[pb::Check]) -> (Value, String) {
    let word = |result| match result {
        pb::CheckResult::Unspecified | pb::CheckResult::Ok => "ok",
        pb::CheckResult::Warning => "warning",
        pb::CheckResult::Bad => "bad",
    };
    let object = |check: &pb::Check| json!({"name": check.name, "result": word(check.result()), "message": check.message});
    let all: Vec<_> = checks.iter().map(object).collect();
    let line = |check: &pb::Check| {
        format!("{:<8} {:<12} {}\n", word(check.result()), check.name, escape(&check.message))
    };
    (json!({"checks": all}), checks.iter().map(line).collect())
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
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
            ..Default::default()
        }
    }

    #[test]
    fn downloads_as_text() {
        assert_eq!(
            download_text(&download(pb::DownloadState::Downloading)),
            "[D] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  12.0 MiB/s  eta 43s  1 sources\n    \
             bob (abcdefgh): 500.0 MiB, 12.0 MiB/s, sending, 1 bad pieces"
        );
        assert_eq!(
            download_text(&download(pb::DownloadState::Complete)),
            "[C] [g1] movie.mp4  1.0 GiB  /out/movie.mp4"
        );
        let failed = pb::Download { cause: "no space left".into(), ..download(pb::DownloadState::Failed) };
        assert_eq!(download_text(&failed), "[F] [g1] movie.mp4  failed  no space left");
        let stalled = pb::Download {
            cause: "no source is known".into(),
            sources: vec![],
            eta_seconds: None,
            rate: 0,
            ..download(pb::DownloadState::Stalled)
        };
        assert_eq!(
            download_text(&stalled),
            "[W] [g1] movie.mp4  50%  512.0 MiB of 1.0 GiB  0 B/s  0 sources  no source is known"
        );
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn json_keys_are_those_that_scripts_rely_on() {
        let (value, _) = groups(&[pb::Group::default()]);
        assert_eq!(keys(&value["groups"][0]), ["id", "members", "owner", "standing"]);
        let (value, _) = members(&[pb::Member::default()]);
        assert_eq!(keys(&value["members"][0]), ["role", "since", "user"]);
        let (value, _) = requests(&[pb::JoinRequest::default()]);
        assert_eq!(keys(&value["requests"][0]), ["since", "user"]);
        let (value, _) = files(&[pb::File::default()]);
        for key in ["name", "size", "seeders", "leechers", "publisher", "since"] {
            assert!(value["files"][0].get(key).is_some(), "{key}");
        }
        let (value, _) = shares(&[pb::Share::default()]);
        assert!(value["shares"][0].get("path").is_some());
        let (value, _) = downloads(&[download(pb::DownloadState::Downloading)]);
        let one = &value["downloads"][0];
        for key in ["group", "name", "state", "done_bytes", "size", "rate", "eta_seconds", "sources", "cause"]
        {
            assert!(one.get(key).is_some(), "{key}");
        }
        assert_eq!(keys(&one["sources"][0]), ["bad_pieces", "bytes", "peer_id", "rate", "state", "user"]);
        assert_eq!((&one["state"], &one["cause"]), (&json!("downloading"), &Value::Null));
        let (value, _) = status(&pb::GetStatusResponse::default());
        for key in ["user", "peer_id", "tls_name", "tracker", "listen", "advertise"] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn every_state_has_its_word() {
        let words: Vec<_> = (1..=7).filter_map(|n| pb::DownloadState::try_from(n).ok()).map(state).collect();
        assert_eq!(words, ["queued", "downloading", "stalled", "verifying", "complete", "stopped", "failed"]);
    }

    #[test]
    fn nothing_printed_can_steer_a_terminal() {
        assert_eq!(name("a\u{1b}[31mb\u{202e}c\nd"), "a\\u{1b}[31mb\\u{202e}c\\nd");
        assert_eq!(name("größe ☺"), "größe ☺");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["größer".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\ngrößer  22\n");
        assert_eq!(listing("nothing", &["NAME"], &[]), "nothing");
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = Some(prost_types::Timestamp { seconds: 0, nanos: 5 });
        assert_eq!(time(at), json!("1970-01-01T00:00:00Z"));
        assert_eq!(time(None), Value::Null);
    }
}
