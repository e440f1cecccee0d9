//! The files of a group, and this peer's downloads and shares.

use std::collections::HashSet;

use maud::{Markup, html};
use proto::pb::{self, DownloadState};

use super::{button, link, name, outcome};
use crate::units;

/// The most items of a list on one page. Thousands of them would take longer to show than people look at them.
const MOST: usize = 50;

/// A link to the rest of a list.
fn rest(after: usize, all: usize) -> Markup {
    let after = after.min(all);
    let next = after + MOST;
    html! {
        @if after > 0 || next < all {
            p {
                (after + 1) " to " (next.min(all)) " of " (all)
                @if next < all { " · " a href={ "/?after=" (next) } { "More" } }
                @if after > 0 { " · " a href="/" { "From the start" } }
            }
        }
    }
}

fn word(state: DownloadState) -> &'static str {
    match state {
        DownloadState::Unspecified | DownloadState::Queued => "queued",
        DownloadState::Downloading => "downloading",
        DownloadState::Stalled => "stalled",
        DownloadState::Verifying => "verifying",
        DownloadState::Complete => "complete",
        DownloadState::Stopped => "stopped",
        DownloadState::Failed => "failed",
    }
}

/// The path of the page that plays a file.
fn player(group: &str, file: &str) -> String {
    link(&["play", group, file])
}

/// This peer's downloads, those that run first.
pub(in crate::page) fn downloads(downloads: &[pb::Download], after: usize) -> Markup {
    if downloads.is_empty() {
        return html! { p { "No downloads." } };
    }
    let mut sorted: Vec<&pb::Download> = downloads.iter().collect();
    sorted.sort_by_key(|one| matches!(one.state(), DownloadState::Complete | DownloadState::Stopped));
    html! {
        ul.cards { @for download in sorted.into_iter().skip(after).take(MOST) { (one_download(download)) } }
        (rest(after, downloads.len()))
        @if downloads.iter().any(|download| download.state() == DownloadState::Complete) {
            (button("clear-downloads", "Clear finished", &[], "/", None))
        }
    }
}

fn one_download(download: &pb::Download) -> Markup {
    let pb::Download { group_id, name: file, done_bytes, size, .. } = download;
    let state = download.state();
    let fields = [("group", group_id.as_str()), ("name", file.as_str())];
    let runs = matches!(
        state,
        DownloadState::Queued
            | DownloadState::Downloading
            | DownloadState::Stalled
            | DownloadState::Verifying
    );
    let cause = if download.cause.is_empty() { &download.why } else { &download.cause };
    html! {
        li id={ "d-" (group_id) "/" (file) } data-state=(word(state)) {
            a href=(player(group_id, file)) { (name(file)) } " " small { (name(group_id)) " · " (word(state)) }
            progress max=(size.max(&1)) value=(done_bytes) aria-label={ "Progress of " (file) } {}
            (map(&download.map))
            p {
                (units::size(*done_bytes)) " of " (units::size(*size))
                @if state == DownloadState::Downloading {
                    " · " (units::rate(download.rate))
                    @if let Some(eta) = download.eta_seconds { " · " (units::seconds(eta)) " left" }
                    " · " (units::count(download.sources.len(), "source"))
                }
            }
            @if !cause.is_empty() && state != DownloadState::Complete { p.cause { (name(cause)) } }
            @if runs { (button("stop-download", "Stop", &fields, "/", None)) }
            @if state != DownloadState::Complete { a href=(player(group_id, file)) { "Why?" } " " }
            @if matches!(state, DownloadState::Stopped | DownloadState::Failed) {
                (button("resume-download", "Resume", &fields, "/", None))
                (button("discard-download", "Discard", &fields, "/", Some("Delete what was downloaded?")))
            }
        }
    }
}

/// Why a download is as fast as it is, and what that follows from.
pub(in crate::page) fn why(why: &pb::ExplainResponse) -> Markup {
    html! {
        p { (name(&why.summary)) }
        ul { @for fact in &why.evidence { li { (name(fact)) } } }
    }
}

/// This peer's copy is what it should be.
pub(in crate::page) fn intact(file: &str, size: u64, back: &str) -> Markup {
    outcome("Verified", html! { p { (name(file)) " (" (units::size(size)) ") is intact." } }, back)
}

/// The map of the pieces: how much of each section of the file is there.
fn map(sections: &[u8]) -> Markup {
    let mut next = 0;
    // Equal sections are one mark, so that the map of a complete file is.
    let marks = sections.chunk_by(|a, b| a == b).map(|run| {
        next += run.len();
        (next - run.len(), run.len(), run[0])
    });
    html! {
        @if !sections.is_empty() {
            svg.map viewBox={ "0 0 " (sections.len()) " 1" } preserveAspectRatio="none" aria-hidden="true" {
                @for (at, width, share) in marks.filter(|(_, _, share)| *share > 0) {
                    rect x=(at) y="0" width=(width) height="1" fill-opacity=(format!("{:.2}", f64::from(share) / 255.0)) {}
                }
            }
        }
    }
}

/// This peer's shares.
pub(in crate::page) fn shares(shares: &[pb::Share], after: usize) -> Markup {
    if shares.is_empty() {
        return html! { p { "No shares." } };
    }
    html! {
        ul.cards {
            @for share in shares.iter().skip(after).take(MOST) {
                li id={ "s-" (share.group_id) "/" (share.name) } {
                    a href=(player(&share.group_id, &share.name)) { (name(&share.name)) }
                    " " small { (name(&share.group_id)) " · " (units::size(share.size)) " · "
                        (units::size(share.uploaded_bytes)) " sent" }
                    @if !share.cause.is_empty() { p.cause { (name(&share.cause)) } }
                    @if share.done_bytes == share.size || !share.cause.is_empty() {
                        (button("stop-share", "Stop sharing",
                            &[("group", &share.group_id), ("name", &share.name)], "/", None))
                    }
                    @if share.done_bytes == share.size {
                        (button("verify", "Verify", &[("group", &share.group_id), ("name", &share.name)],
                            &player(&share.group_id, &share.name), None))
                    }
                }
            }
        }
        (rest(after, shares.len()))
    }
}

/// The names of a group's files that this peer has or downloads.
pub(in crate::page) struct Here(HashSet<String>);

impl Here {
    pub(in crate::page) fn new(group: &str, downloads: &[pb::Download], shares: &[pb::Share]) -> Self {
        let downloads = downloads.iter().filter(|download| download.group_id == group);
        let shares = shares.iter().filter(|share| share.group_id == group);
        Self(downloads.map(|one| one.name.clone()).chain(shares.map(|one| one.name.clone())).collect())
    }
}

/// A page of a group's files.
pub(in crate::page) fn files(group: &str, page: &pb::ListFilesResponse, here: &Here) -> Markup {
    let back = link(&["group", group]);
    if page.files.is_empty() {
        return html! { p { "No files." } };
    }
    html! {
        table {
            thead { tr { th scope="col" { "Name" } th scope="col" { "Size" } th scope="col" { "Seeders" }
                th scope="col" { "Leechers" } th scope="col" { "Publisher" } th scope="col" { "Here" } } }
            tbody {
                @for file in &page.files {
                    @let header = file.header.clone().unwrap_or_default();
                    tr id={ "f-" (header.name) } {
                        th scope="row" {
                            @if here.0.contains(&header.name) {
                                a href=(player(group, &header.name)) { (name(&header.name)) }
                            } @else { (name(&header.name)) }
                        }
                        td { (units::size(header.length)) } td { (file.seeders) } td { (file.leechers) }
                        td { (name(&file.publisher)) }
                        td { @if here.0.contains(&header.name) { "yes" } @else { (download(group, &header.name, &back)) } }
                    }
                }
            }
        }
        @if !page.next_page_token.is_empty() {
            p { a href={ (back) "?after=" (&link(&[&page.next_page_token])[1..]) } { "More files" } }
        }
    }
}

/// The form that downloads a file.
fn download(group: &str, file: &str, back: &str) -> Markup {
    let to = std::env::home_dir().map(|home| home.join("Downloads").join(file).display().to_string());
    html! {
        form.inline method="post" action="/do" {
            input type="hidden" name="back" value=(back);
            input type="hidden" name="group" value=(group);
            input type="hidden" name="name" value=(file);
            label { span.unseen { "Where to" } input name="to" value=(to.unwrap_or_default()) required; }
            button name="do" value="download" { "Download" }
        }
    }
}

/// The form that shares a path of this machine with a group.
pub(super) fn new_share(group: &str) -> Markup {
    html! {
        section aria-labelledby="share-h" {
            h2 #share-h { "Share a file or folder" }
            form.inline method="post" action="/do" {
                input type="hidden" name="back" value=(link(&["group", group]));
                input type="hidden" name="group" value=(group);
                label { "Path on this machine" input name="path" required; }
                button name="do" value="share" { "Share" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: DownloadState) -> String {
        let download = pb::Download {
            group_id: "g1".into(),
            name: "movie.mp4".into(),
            state: state.into(),
            done_bytes: 1 << 20,
            size: 2 << 20,
            rate: 1 << 20,
            eta_seconds: Some(1),
            map: vec![255, 255, 0, 128].into(),
            ..Default::default()
        };
        downloads(&[download], 0).into_string()
    }

    #[test]
    fn a_download_shows_how_far_it_is_and_what_can_be_done() {
        let running = one(DownloadState::Downloading);
        for part in [
            "1.0 MiB of 2.0 MiB",
            "1.0 MiB/s",
            "1s left",
            "value=\"stop-download\"",
            "href=\"/play/g1/movie.mp4\"",
        ] {
            assert!(running.contains(part), "{part}: {running}");
        }
        assert_eq!(
            running.matches("<rect").count(),
            2,
            "an empty section is not drawn, and equal ones are one mark"
        );
        let stopped = one(DownloadState::Stopped);
        assert!(stopped.contains("resume-download") && !stopped.contains("\"stop-download\""), "{stopped}");
        assert!(one(DownloadState::Complete).contains("clear-downloads"));
    }

    #[test]
    fn a_long_list_is_shown_in_parts() {
        let share = |number: usize| pb::Share { name: format!("f{number:05}"), ..Default::default() };
        let all: Vec<_> = (0..10_000).map(share).collect();
        let shown = |after| shares(&all, after).into_string();
        let first = shown(0);
        assert!(first.contains("1 to 50 of 10000") && first.contains("/?after=50\""), "{first}");
        assert!(first.contains("f00049") && !first.contains("f00050"));
        let last = shown(9_950);
        assert!(last.contains("9951 to 10000 of 10000") && !last.contains("More"), "{last}");
        assert!(shown(usize::MAX).contains("From the start"));
    }
}
