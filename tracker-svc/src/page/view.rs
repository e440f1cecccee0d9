//! From figures to HTML. Pure.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::figures::{Figures, Method, Rate};

/// A certificate that ends within so many days is shown as a fault. The tracker renews its own one earlier.
const SOON: f64 = 7.0;

/// The whole page.
pub(super) fn page(figures: &Figures<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Tracker · Mini Torrent" }
                link rel="stylesheet" href="/page.css";
                script type="module" src="/page.js" {}
            }
            body {
                header {
                    h1 { "Mini Torrent tracker" }
                    p #connection role="status" {}
                    noscript { p { "Load the page again for newer figures." } }
                }
                main {
                    (state(figures))
                    (rates(figures))
                    (calls(figures))
                    (reasons(&figures.reasons))
                }
                footer { p { "All of this is in " a href="/metrics" { "the metrics" } ", version " (figures.version) "." } }
            }
        }
    }
}

fn state(figures: &Figures<'_>) -> Markup {
    let good = |metric: &str| figures.get(metric) > 0.0;
    html! {
        section aria-labelledby="state" {
            h2 #state { "Now" }
            dl {
                (fact("Peers", &count(figures.get("peers"))))
                (fact("Swarms", &count(figures.get("swarms"))))
                (fact("Announced files, by all peers", &count(figures.get("leases"))))
                (fact("Sessions", &count(figures.get("sessions"))))
                (fact("Passwords being hashed", &count(figures.get("hashing"))))
            }
            ul {
                (health(good("store_writable"), figures.store, "can be written", "can't be written: look at its disk and its log"))
                @if !figures.swarm_store.is_empty() {
                    (health(good("swarm_store_answers"), figures.swarm_store, "answers", "does not answer: peers of other trackers are not found"))
                    li { (count(figures.get("other_trackers"))) " other trackers live" }
                }
                @for end in &figures.ends {
                    li.bad[end.days < SOON] {
                        (match end.name.as_str() { "own" => "The tracker's certificate", _ => "The certificate of the authority" })
                        " ends in " (format!("{:.0}", end.days)) " days, on " (date(end.at))
                    }
                }
            }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn health(is_good: bool, what: &str, good: &str, bad: &str) -> Markup {
    html! { li.bad[!is_good] { (what) " " (if is_good { good } else { bad }) } }
}

fn rates(figures: &Figures<'_>) -> Markup {
    let minutes = format!("{:.0}", (figures.window.as_secs_f64() / 60.0).ceil());
    html! {
        section aria-labelledby="rates" {
            h2 #rates { "Rates, last " (minutes) " min" }
            dl {
                (plotted("Calls", &figures.calls))
                (plotted("Announces", &figures.announces))
                (plotted("Failures", &figures.failures))
            }
        }
    }
}

/// A rate with its course. The course is drawn over the height of its highest value, which is named.
fn plotted(name: &str, rate: &Rate) -> Markup {
    let top = rate.course.iter().copied().fold(0.0, f64::max);
    let points: Vec<String> = rate
        .course
        .iter()
        .enumerate()
        .map(|(at, value)| format!("{at},{:.1}", 29.0 - 28.0 * value.max(0.0) / top.max(f64::MIN_POSITIVE)))
        .collect();
    html! {
        div {
            dt { (name) }
            dd { (per_second(rate.mean)) " " small { "at most " (per_second(top)) } }
            @if points.len() > 1 {
                svg viewBox={ "0 0 " (points.len() - 1) " 30" } preserveAspectRatio="none" aria-hidden="true" {
                    polyline points=(points.join(" ")) vector-effect="non-scaling-stroke" {}
                }
            }
        }
    }
}

fn calls(figures: &Figures<'_>) -> Markup {
    html! {
        section aria-labelledby="calls" {
            h2 #calls { "Calls, the slowest first" }
            @if figures.methods.is_empty() { p { "No call yet." } } @else {
                // Whoever uses the keyboard alone scrolls it, too.
                div.wide tabindex="0" role="group" aria-labelledby="calls" {
                    table {
                        thead { tr {
                            @for head in ["Method", "Now", "Mean", "99 % within", "Slower than 0.1 s", "All", "Failed"] {
                                th scope="col" { (head) }
                            }
                        } }
                        tbody { @for method in &figures.methods { (call(method)) } }
                    }
                }
            }
        }
    }
}

fn call(method: &Method) -> Markup {
    let name = method.name.rsplit_once('.').map_or(method.name.as_str(), |(_, name)| name);
    html! {
        tr.bad[method.slow > 0.0] {
            th scope="row" { (name) }
            td { (per_second(method.rate)) }
            td { (method.mean.map_or_else(|| "–".to_owned(), time)) }
            td { (method.most.map_or_else(|| "–".to_owned(), time)) }
            td { (count(method.slow)) }
            td { (count(method.calls)) }
            td { (count(method.failed)) }
        }
    }
}

fn reasons(reasons: &[(&str, f64)]) -> Markup {
    html! {
        section aria-labelledby="failures" {
            h2 #failures { "Failures since the start" }
            @if reasons.is_empty() { p { "None." } }
            dl { @for (reason, times) in reasons { (fact(reason, &count(*times))) } }
        }
    }
}

fn count(number: f64) -> String {
    format!("{number:.0}")
}

fn per_second(rate: f64) -> String {
    format!("{rate:.*}/s", if rate < 10.0 { 2 } else { 0 })
}

fn time(seconds: f64) -> String {
    match seconds {
        long if long.is_infinite() => "over 6.6 s".to_owned(),
        long if long >= 1.0 => format!("{long:.1} s"),
        short => format!("{:.1} ms", short * 1_000.0),
    }
}

/// The day of a time in seconds since 1970.
fn date(seconds: f64) -> String {
    Timestamp::from_second(seconds as i64)
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%F").to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::numbers::Numbers, *};
    use crate::metrics::Metrics;

    #[test]
    fn faults_are_marked_and_all_is_escaped() {
        let metrics = Metrics::default();
        metrics.describe("SQLite", "Redis");
        metrics.set_certificate_end("own", std::time::UNIX_EPOCH + Duration::from_secs(86_400));
        let text =
            format!("{}minitorrent_tracker_calls_total{{method=\"/<b>\",code=\"OK\"}} 1\n", metrics.render());
        let earlier = [(Duration::ZERO, Numbers::default())];
        let now = (Duration::from_secs(60), Numbers::read(&text));
        let shown = page(&Figures::new(&earlier, &now, Duration::ZERO)).into_string();
        for part in [
            "SQLite can&#39;t be written",
            "Redis does not answer",
            "<li class=\"bad\">The tracker&#39;s certificate ends in 1 days, on 1970-01-02",
            "/&lt;b&gt;",
        ] {
            let plain = part.replace("&#39;", "'");
            assert!(shown.contains(part) || shown.contains(&plain), "{part}: {shown}");
        }
        assert!(!shown.contains("<b>") && !shown.contains("style=") && !shown.contains("onclick"), "{shown}");
        metrics.store_writable.set(1);
        let now = (Duration::ZERO, Numbers::read(&metrics.render()));
        let shown = page(&Figures::new(&[], &now, Duration::ZERO)).into_string();
        assert!(shown.contains("SQLite can be written"), "{shown}");
    }

    #[test]
    fn values_for_people() {
        assert_eq!(
            (time(0.0016), time(1.64), time(f64::INFINITY)),
            ("1.6 ms".into(), "1.6 s".into(), "over 6.6 s".into())
        );
        assert_eq!((per_second(0.066), per_second(1_234.5)), ("0.07/s".into(), "1234/s".into()));
    }
}
