//! From the daemon's answers to HTML. Pure. Text of others is always escaped: by the templates for HTML, and by
//! [`name`] for characters that are not seen.

pub(super) mod files;
pub(super) mod groups;
pub(super) mod swarm;

use maud::{DOCTYPE, Markup, html};
use proto::{domain::visible, pb};

use crate::units;

/// A part of a page: its id, its heading, and its content.
pub(super) type Section = (&'static str, &'static str, Markup);

/// A name for people: characters that are not seen are written out, and its direction does not change the text around.
fn name(text: &str) -> Markup {
    html! { bdi { (visible::escape(text)) } }
}

/// The path of a page: each part percent-encoded.
pub(super) fn link(parts: &[&str]) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(byte.into());
            } else {
                path += &format!("%{byte:02X}");
            }
        }
    }
    path
}

/// A whole page of these sections. `at` is its own path, to which its forms lead back.
pub(super) fn page(title: &str, at: &str, sections: &[Section]) -> Markup {
    let group = at.strip_prefix("/group/").map(|_| title);
    layout(
        title,
        html! {
            @for section in sections { (live(section)) }
            @if group.is_none() { (groups::new_group()) }
            @if let Some(group) = group { (files::new_share(group)) }
        },
        group,
        None,
    )
}

/// A section that is kept up to date.
fn live((id, heading, content): &Section) -> Markup {
    html! {
        section aria-labelledby={ (id) "-h" } {
            h2 id={ (id) "-h" } { (heading) }
            div #(id) data-live { (content) }
        }
    }
}

/// A page. Its news are those of the group, of a file of it, or of the first page.
fn layout(title: &str, content: Markup, group: Option<&str>, file: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (visible::escape(title)) " · Mini Torrent" }
                link rel="stylesheet" href="/page.css";
                script type="module" src="/page.js" {}
            }
            body data-group=[group] data-file=[file] {
                a.skip href="#main" { "Skip to the content" }
                header {
                    nav aria-label="Pages" { a href="/" { "Mini Torrent" } " " a href="/checks" { "Checks" } }
                    p #connection role="status" {}
                }
                main #main tabindex="-1" {
                    h1 { (name(title)) }
                    (content)
                }
            }
        }
    }
}

/// A form with one button. `fields` are sent with it. A button that needs a second thought has a question.
fn button(what: &str, label: &str, fields: &[(&str, &str)], back: &str, question: Option<&str>) -> Markup {
    html! {
        form method="post" action="/do" data-confirm=[question] {
            input type="hidden" name="back" value=(back);
            @for (field, value) in fields { input type="hidden" name=(field) value=(value); }
            button name="do" value=(what) { (label) }
        }
    }
}

/// What this peer is and does.
pub(super) fn status(status: &pb::GetStatusResponse) -> Markup {
    let limit = |rate: u64| if rate == 0 { String::new() } else { units::limit(rate) };
    html! {
        @if status.username.is_empty() {
            p.bad { "Nobody is logged in. Log in with " code { "peer login USER" } "." }
        } @else if !status.tracker_connected {
            p.bad { "The tracker can't be reached: " (name(&status.tracker_problem)) }
        }
        dl.facts {
            div { dt { "User" } dd { (name(&status.username)) } }
            div { dt { "Tracker" } dd { (name(&status.tracker)) } }
            div { dt { "Down" } dd { (units::rate(status.download_rate)) } }
            div { dt { "Up" } dd { (units::rate(status.upload_rate)) } }
            div { dt { "Uploads" } dd { (status.uploads_active) " running, " (status.uploads_waiting) " waiting" } }
        }
        form.inline method="post" action="/do" {
            label { "Download limit" input name="down" value=(limit(status.download_limit)) placeholder="none" size="8"; }
            label { "Upload limit" input name="up" value=(limit(status.upload_limit)) placeholder="none" size="8"; }
            button name="do" value="limits" { "Set limits" }
        }
    }
}

/// Why there is no state to show.
pub(super) fn problem(message: &str) -> Markup {
    html! { p.bad { (name(message)) } }
}

/// Why something was not done.
pub(super) fn refusal(message: &str) -> Markup {
    layout(
        "Not done",
        html! { p.bad role="alert" { (name(message)) } p { a href="/" { "Back to the first page" } } },
        None,
        None,
    )
}

/// A page that leads to the first page.
pub(super) fn forward() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta http-equiv="refresh" content="0;url=/"; title { "Mini Torrent" } }
            body { p { a href="/" { "Go on" } } }
        }
    }
}

/// What was done, as a page.
fn outcome(title: &str, content: Markup, back: &str) -> Markup {
    layout(title, html! { div role="status" { (content) } p { a href=(back) { "Back" } } }, None, None)
}

/// The findings of all checks.
pub(super) fn checks(checks: &[pb::Check]) -> Markup {
    let word = |check: &pb::Check| match check.result() {
        pb::CheckResult::Unspecified | pb::CheckResult::Ok => "ok",
        pb::CheckResult::Warning => "warning",
        pb::CheckResult::Bad => "bad",
    };
    let content = html! {
        ul.cards {
            @for check in checks {
                li.bad[check.result() == pb::CheckResult::Bad] {
                    strong { (check.name) } " " small { (word(check)) }
                    p { (name(&check.message)) }
                }
            }
        }
        p { a href="/checks" { "Check again" } }
    };
    layout("Checks", content, None, None)
}

/// The page of a file, which plays it. `kind` is its media type, if browsers know one.
pub(super) fn file(group: &str, file: &str, kind: Option<&str>, sections: &[Section]) -> Markup {
    let parts: Vec<&str> = ["read", group].into_iter().chain(file.split('/')).collect();
    let source = link(&parts);
    let content = html! {
        @match kind.and_then(|kind| kind.split('/').next()) {
            Some("video") => { video controls preload="metadata" src=(source) aria-label=(file) {} }
            Some("audio") => { audio controls preload="metadata" src=(source) aria-label=(file) {} }
            Some("image") => { img src=(source) alt=(file); }
            _ => { p { "Browsers can't show this kind of file." } }
        }
        p { a href=(source) download { "Save" } " · " a href=(link(&["group", group])) { "Back to " (name(group)) } }
        @for section in sections { (live(section)) }
    };
    layout(file, content, Some(group), Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_do_nothing() {
        let hostile = "<script>alert(1)</script>\"'\u{202e}x";
        let sections = [("files", "Files", problem(hostile))];
        let shown = page(hostile, &link(&["group", hostile]), &sections).into_string();
        assert!(!shown.contains("<script>alert") && shown.contains("&lt;script&gt;"), "{shown}");
        assert!(!shown.contains("onclick") && !shown.contains("style="), "the policy would refuse it");
        assert!(name(hostile).into_string().contains("\\u{202e}"), "what is not seen is written out");
        let player = file(hostile, hostile, Some("video/mp4"), &sections).into_string();
        assert!(!player.contains("<script>alert"), "{player}");
    }

    #[test]
    fn links_are_percent_encoded() {
        assert_eq!(link(&["group", "a b/c?\"ä"]), "/group/a%20b%2Fc%3F%22%C3%A4");
    }
}
