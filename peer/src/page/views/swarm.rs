//! The swarm as this peer sees it: who sends what to whom, and how fast bytes went in the last minutes.

use maud::{Markup, html};
use proto::pb::{self, SourceState};

use super::name;
use crate::{page::rates, units};

/// The most lines of each direction.
const MOST: usize = 12;

/// A line of the picture: a user, a file, and bytes a second.
struct Flow<'a> {
    user: &'a str,
    file: &'a str,
    rate: u64,
}

/// Who sends to this peer, and to whom it sends. The bars compare all rates of the picture.
pub(in crate::page) fn flows(downloads: &[pb::Download], receivers: &[pb::Receiver]) -> Markup {
    let sources = downloads.iter().flat_map(|download| {
        let senders = download.sources.iter().filter(|source| source.state() == SourceState::Sending);
        senders.map(|source| Flow { user: &source.username, file: &download.name, rate: source.rate })
    });
    let mut incoming: Vec<Flow> = sources.collect();
    incoming.sort_by_key(|flow| std::cmp::Reverse(flow.rate));
    let outgoing: Vec<Flow> =
        receivers.iter().map(|one| Flow { user: &one.username, file: &one.name, rate: one.rate }).collect();
    let top = incoming.iter().chain(&outgoing).map(|flow| flow.rate).max().unwrap_or_default().max(1);
    if incoming.is_empty() && outgoing.is_empty() {
        return html! { p { "Nothing is moving." } };
    }
    html! {
        div.flows {
            (side("Sent to this peer", "in", &incoming, top))
            p.hub aria-hidden="true" { "this peer" }
            (side("Sent by this peer", "out", &outgoing, top))
        }
    }
}

fn side(title: &str, class: &str, flows: &[Flow<'_>], top: u64) -> Markup {
    html! {
        div class=(class) {
            h3 { (title) }
            @if flows.is_empty() { p { "Nothing." } }
            ul {
                @for flow in flows.iter().take(MOST) {
                    li {
                        (name(flow.user)) " " small { (name(flow.file)) " · " (units::rate(flow.rate)) }
                        svg.bar viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" {
                            rect x=(if class == "in" { 100 - flow.rate * 100 / top } else { 0 }) y="0"
                                width=(flow.rate * 100 / top) height="1" {}
                        }
                    }
                }
            }
            @if flows.len() > MOST { p { "and " (flows.len() - MOST) " more" } }
        }
    }
}

/// The rates of the last minutes as two lines. The highest rate is at the top, and is named.
pub(in crate::page) fn rates(rates: &[(u64, u64)]) -> Markup {
    let top = rates.iter().map(|(down, up)| *down.max(up)).max().unwrap_or_default();
    let mean = |rate: fn(&(u64, u64)) -> u64| rates.iter().map(rate).sum::<u64>() / rates.len().max(1) as u64;
    let minutes = rates::EVERY.as_secs() * rates::KEPT as u64 / 60;
    html! {
        // A line's text says what it shows, for those who can't see it.
        svg.plot viewBox={ "0 0 " (rates::KEPT - 1) " 30" } preserveAspectRatio="none" role="img"
            aria-label={ "The last " (minutes) " minutes: down " (units::rate(mean(|rate| rate.0))) " and up "
                (units::rate(mean(|rate| rate.1))) " on average, at most " (units::rate(top)) } {
            (line("down", rates, |rate| rate.0, top))
            (line("up", rates, |rate| rate.1, top))
        }
        p.key { span.down { "down" } " " span.up { "up" } " · last " (minutes) " minutes · at most " (units::rate(top)) }
    }
}

fn line(class: &str, rates: &[(u64, u64)], value: fn(&(u64, u64)) -> u64, top: u64) -> Markup {
    let first = rates::KEPT.saturating_sub(rates.len());
    let points: Vec<String> = rates
        .iter()
        .enumerate()
        .map(|(at, rate)| {
            format!("{},{:.1}", first + at, 29.0 - 28.0 * value(rate) as f64 / top.max(1) as f64)
        })
        .collect();
    html! { polyline class=(class) points=(points.join(" ")) vector-effect="non-scaling-stroke" {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_both_directions_are_shown_and_compared() {
        let source = |username: &str, state: SourceState, rate| pb::DownloadSource {
            username: username.into(),
            state: state.into(),
            rate,
            ..Default::default()
        };
        let download = pb::Download {
            name: "<b>".into(),
            sources: vec![
                source("ann", SourceState::Sending, 2_000),
                source("eve", SourceState::Queued, 9_000),
            ],
            ..Default::default()
        };
        let receiver = pb::Receiver { username: "bob".into(), rate: 1_000, ..Default::default() };
        let shown = flows(&[download], &[receiver]).into_string();
        assert!(shown.contains("ann") && shown.contains("bob") && !shown.contains("eve"), "{shown}");
        assert!(
            shown.contains("&lt;b&gt;") && shown.contains("width=\"100\"") && shown.contains("width=\"50\""),
            "{shown}"
        );
        assert!(flows(&[], &[]).into_string().contains("Nothing is moving"));
    }

    #[test]
    fn the_plot_ends_now() {
        let shown = rates(&[(0, 0), (1 << 20, 0)]).into_string();
        assert!(
            shown.contains(&format!("points=\"{},29.0 {},1.0\"", rates::KEPT - 2, rates::KEPT - 1)),
            "{shown}"
        );
        assert!(shown.contains("at most 1.0 MiB/s"), "{shown}");
    }
}
