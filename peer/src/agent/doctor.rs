//! Checks of everything that a peer needs. Each check says what was found and, if something is wrong, what to
//! do.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use program::durable::{self, Readers};
use proto::{domain::expiry::warning, pb};
use transport::{fingerprints, presented_end, validity};

use super::Agent;
use crate::{
    domain::download::window,
    engine::{CLOCK_OFF, Dialer as _},
    ports::Obstacle,
    tracker::{announcer::UnreachedBy, line::Line, list::url_parts},
};

/// The largest difference between this clock and the tracker's at which tickets still work well, in seconds.
const CLOCK_SKEW: u64 = 60;
/// Free space below which downloads are at risk, in bytes.
const LOW_SPACE: u64 = 1 << 30;
/// Free space below which nothing useful can be written, in bytes.
const NO_SPACE: u64 = 1 << 20;

/// How long a report that this peer could not be reached counts.
const RECENT: Duration = Duration::from_mins(10);

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing is wrong.
    Good,
    /// It works, but something should be corrected.
    Warning,
    /// It does not work.
    Bad,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// The part that was checked.
    pub name: &'static str,
    /// The result.
    pub finding: Finding,
    /// What was found and what to do.
    pub message: String,
}

impl Check {
    fn new(name: &'static str, finding: Finding, message: impl Into<String>) -> Self {
        Self { name, finding, message: message.into() }
    }

    fn of<T, E: std::fmt::Display>(
        name: &'static str,
        result: Result<T, E>,
        good: impl FnOnce(T) -> String,
        advice: &str,
    ) -> Self {
        match result {
            Ok(value) => Self::new(name, Finding::Good, good(value)),
            Err(error) => Self::new(name, Finding::Bad, format!("{error}; {advice}")),
        }
    }
}

impl Check {
    /// Adds a warning if a certificate ends soon. `renewed_with` is the time left at which it is renewed by
    /// itself.
    fn with_end(self, ends: Option<SystemTime>, renewed_with: Option<Duration>, advice: &str) -> Self {
        let left = ends.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
        let Some(days) = left.and_then(|left| warning(left, renewed_with)) else { return self };
        if self.finding != Finding::Good {
            return self;
        }
        let message = format!("{}; a certificate ends within {days} days: {advice}", self.message);
        Self { finding: Finding::Warning, message, ..self }
    }
}

impl Agent {
    /// Does all checks. Takes some seconds when the tracker does not answer.
    pub(crate) async fn diagnose(&self) -> Vec<Check> {
        let mut checks = vec![self.check_home(), self.check_authority().await, self.check_tracker().await];
        let Some(login) = self.current() else {
            let message = "nobody is logged in; log in with `peer login USER`";
            checks.push(Check::new("session", Finding::Bad, message));
            return checks;
        };
        // These checks need the tracker.
        if checks.iter().all(|check| check.name != "tracker" || check.finding != Finding::Bad) {
            checks.push(self.check_session(&login).await);
            checks.push(self.check_announce());
            checks.push(check_clock(self.announce.borrow().clock_offset));
        }
        checks.push(self.check_certificate());
        checks.push(self.check_port().await);
        checks.push(self.check_reach());
        checks.push(self.check_shares());
        checks.push(self.check_downloads());
        checks
    }

    fn check_home(&self) -> Check {
        let home = self.parts.home.directory();
        let probe = home.join(".doctor");
        let written = durable::write(&probe, b"", Readers::Owner).and_then(|()| std::fs::remove_file(&probe));
        if let Err(error) = written {
            return Check::new(
                "home",
                Finding::Bad,
                format!("{} can't be used: {error}; free some space or repair it", home.display()),
            );
        }
        let free = rustix::fs::statvfs(home).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
        let (finding, advice) = match free {
            Ok(free) if free < NO_SPACE => (Finding::Bad, ": the disk is full; free some space there"),
            Ok(free) if free < LOW_SPACE => (Finding::Warning, "; free some space there"),
            _ => (Finding::Good, ""),
        };
        let free = free.map_or_else(|error| error.to_string(), crate::units::size);
        Check::new("home", finding, format!("{}, {free} free{advice}", home.display()))
    }

    async fn check_authority(&self) -> Check {
        let shown = |pem: Arc<str>| match fingerprints(&pem) {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        let advice = "copy the tracker's ca.pem to this machine and name it with --ca or PEER_CA";
        let pem = self.parts.tracker.ca_pem().await;
        let ends = pem.as_ref().ok().and_then(|pem| validity(pem).ok()).map(|validity| validity.not_after);
        let check = Check::of("authority", pem, shown, advice);
        check.with_end(ends, None, "the tracker's operator has to make a new one")
    }

    /// Calls every tracker of the network. One that answers is enough to work.
    async fn check_tracker(&self) -> Check {
        let tracker = &self.parts.tracker;
        let ask = async |line: Line| {
            let mut auth = line.auth_without_token().await?;
            line.within(auth.get_tracker_keys(pb::GetTrackerKeysRequest {})).await.map(|_| line.clone())
        };
        let asked = futures_util::future::join_all(tracker.lines().into_iter().map(ask)).await;
        let (answer, silent): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
        let answer: Vec<_> = answer.into_iter().flatten().collect();
        let silent: Vec<_> =
            silent.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        let advice = "check that `tracker-svc serve` is running there, and that this is its CA";
        let urls = answer.iter().map(Line::url).collect::<Vec<_>>().join(", ");
        let (finding, message) = match (answer.len(), silent.is_empty()) {
            (0, _) => (Finding::Bad, format!("{}; {advice}", silent.join("; "))),
            (_, false) => {
                let left = format!("the tracker at {urls} answers, and the peer works with it");
                (Finding::Warning, format!("{}; {advice}; {left}", silent.join("; ")))
            }
            (1, true) => (Finding::Good, format!("the tracker at {urls} answers")),
            (_, true) => (Finding::Good, format!("the trackers at {urls} answer")),
        };
        let mut check = Check::new("tracker", finding, message);
        if let Ok(pem) = tracker.ca_pem().await {
            for line in &answer {
                let (scheme, host, port) = url_parts(line.url());
                if scheme == "https" {
                    let ends = presented_end(host, port, &pem, Duration::from_secs(5)).await.ok();
                    check = check.with_end(ends, None, "the tracker's operator has to renew it");
                }
            }
        }
        check
    }

    async fn check_session(&self, login: &super::Login) -> Check {
        let asked = self.parts.tracker.ask(async |line| {
            let mut auth = line.auth().await?;
            line.within(auth.who_am_i(pb::WhoAmIRequest {})).await
        });
        let user = &login.session.user;
        Check::of(
            "session",
            asked.await,
            |_| format!("{user} is logged in"),
            "log in again with `peer login USER`",
        )
    }

    fn check_certificate(&self) -> Check {
        let identity = self.parts.identity.borrow().clone();
        let Some(identity) = identity else {
            let message = "this peer has no certificate yet; the tracker must be reachable to issue one";
            return Check::new("certificate", Finding::Bad, message);
        };
        let left = identity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let name = identity.peer.tls_name();
        if left.is_zero() {
            let message = format!("{name} has expired; the tracker must be reachable to renew it");
            return Check::new("certificate", Finding::Bad, message);
        }
        let shown = crate::units::seconds(left.as_secs());
        let check = Check::new("certificate", Finding::Good, format!("{name} is valid for {shown} more"));
        let life = identity.not_after.duration_since(identity.not_before).unwrap_or_default();
        check.with_end(Some(identity.not_after), Some(life / 3), "the tracker must be reachable to renew it")
    }

    fn check_announce(&self) -> Check {
        let state = self.announce.borrow().clone();
        if state.connected {
            let seen = state.observed_ip.unwrap_or_else(|| "an unknown address".into());
            return Check::new(
                "announce",
                Finding::Good,
                format!("the stream is open; the tracker sees this peer at {seen}"),
            );
        }
        let problem = state.problem.unwrap_or_else(|| "the stream is being opened".into());
        Check::new(
            "announce",
            Finding::Bad,
            format!("{problem}; others can't find this peer until the stream is open"),
        )
    }

    /// Connects to this peer at its advertised addresses, as other peers would.
    async fn check_port(&self) -> Check {
        let status = self.status();
        let Some(identity) = status.identity.filter(|_| !status.advertise.is_empty()) else {
            return Check::new("port", Finding::Warning, "not known yet how others reach this peer");
        };
        let dialer = crate::identity::PeerDialer(self.parts.identity.subscribe());
        let dialled = status.advertise.iter().map(async |address| {
            let dialling = dialer.dial(identity.peer, address, window(0));
            match tokio::time::timeout(Duration::from_secs(5), dialling).await {
                Ok(Ok(_)) => Ok(address.clone()),
                Ok(Err(error)) => Err(format!("{address} ({error})")),
                Err(_) => Err(format!("{address} (no answer)")),
            }
        });
        let dialled = futures_util::future::join_all(dialled).await;
        let (good, bad): (Vec<_>, Vec<_>) = dialled.into_iter().partition(Result::is_ok);
        let good = good.into_iter().filter_map(Result::ok).collect::<Vec<_>>().join(", ");
        if !bad.is_empty() {
            let bad = bad.into_iter().filter_map(Result::err).collect::<Vec<_>>().join(", ");
            let advice = "see --listen, --advertise and firewalls";
            let message = format!("this peer is not reached from here at {bad}; {advice}");
            return Check::new("port", Finding::Warning, message);
        }
        if status.advertise.iter().all(|address| super::is_local(address)) {
            let message = format!(
                "other hosts can't reach this peer: it is announced at {good} only; it listens at {}, see \
                 --listen and --advertise",
                status.listen
            );
            return Check::new("port", Finding::Warning, message);
        }
        Check::new("port", Finding::Good, format!("reached from here at {good}; other hosts may differ"))
    }

    /// Names the peers that could not reach this one, as they told the tracker.
    fn check_reach(&self) -> Check {
        let state = self.announce.borrow().clone();
        let is_recent = |by: &&UnreachedBy| by.at.elapsed().is_ok_and(|age| age < RECENT);
        let recent: Vec<_> = state.unreached_by.iter().filter(is_recent).collect();
        let Some(last) = recent.last() else {
            return Check::new("reach", Finding::Good, "no peer says that it can't reach this one");
        };
        let ago = crate::units::seconds(last.at.elapsed().unwrap_or_default().as_secs());
        let remedy = match last.obstacle {
            Obstacle::Refused | Obstacle::Silent => "open the port in the firewalls, see --listen",
            Obstacle::Clock => "set the clocks of both hosts right (NTP)",
            Obstacle::Forbidden => "the firewall there has to allow it",
            _ => "see --advertise",
        };
        let what = last.obstacle.words();
        let message = format!(
            "{} could not reach this peer at {} {ago} ago: {what}; {remedy}",
            last.user, last.address
        );
        Check::new("reach", Finding::Warning, message)
    }

    fn check_shares(&self) -> Check {
        let shares = self.shares().unwrap_or_default();
        let troubled: Vec<_> =
            shares.iter().filter_map(|share| Some((share, share.problem.as_ref()?))).collect();
        let Some((share, problem)) = troubled.first() else {
            return Check::new("shares", Finding::Good, format!("{} shared", shares.len()));
        };
        let (group, name) = (&share.entry.group, &share.entry.name);
        let message = format!("{} not shared now; {name} of {group}: {}", troubled.len(), problem.message);
        Check::new("shares", Finding::Warning, message)
    }
    fn check_downloads(&self) -> Check {
        let all = self.downloads().unwrap_or_default();
        let mut troubled =
            all.iter().filter_map(|download| Some((download, download.view.problem.as_ref()?)));
        let Some((download, problem)) = troubled.next() else {
            return Check::new("downloads", Finding::Good, "no download has a problem");
        };
        let (group, name) = (&download.entry.group, &download.entry.name);
        let message =
            format!("{} with a problem; {name} of {group}: {}", 1 + troubled.count(), problem.message);
        Check::new("downloads", Finding::Warning, message)
    }
}

/// Checks the clock. `offset` is how far the tracker's clock is ahead of this one, in seconds.
fn check_clock(offset: i64) -> Check {
    let off = offset.unsigned_abs();
    let (finding, advice) = if off > CLOCK_OFF {
        (Finding::Bad, "; this peer serves nobody until the clock is corrected (NTP)")
    } else if off > CLOCK_SKEW {
        (Finding::Warning, "; correct it (NTP), or tickets may be refused")
    } else {
        (Finding::Good, "")
    };
    Check::new("clock", finding, format!("the clock differs from the tracker's by {offset} s{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_either_way_is_named() {
        for (offset, finding) in [
            (0, Finding::Good),
            (60, Finding::Good),
            (61, Finding::Warning),
            (-61, Finding::Warning),
            (600, Finding::Warning),
            (-600, Finding::Warning),
            (601, Finding::Bad),
            (-601, Finding::Bad),
            // Extremes that a faulty tracker may lead to.
            (i64::MIN, Finding::Bad),
            (i64::MAX, Finding::Bad),
        ] {
            let check = check_clock(offset);
            assert_eq!(check.finding, finding, "{offset}");
            assert!(check.message.contains(&format!("tracker's by {offset} s")), "{check:?}");
        }
    }
}
