//! Checks of everything that a working peer needs. Each says what was found and, when it is not right, what to do.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{
    durable::{self, Readers},
    pb,
    transport::fingerprints,
};

use super::Agent;
use crate::engine::{CLOCK_OFF, Dialer as _};

/// How far this clock may be from the tracker's before tickets suffer, in seconds.
const CLOCK_SKEW: u64 = 60;
/// Free space below which downloads are in danger, in bytes.
const LOW_SPACE: u64 = 1 << 30;
/// Free space below which nothing of use can be written, in bytes.
const NO_SPACE: u64 = 1 << 20;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Good,
    /// It works, but not as it should.
    Warning,
    /// It does not work.
    Bad,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
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

impl Agent {
    /// Checks everything. Takes some seconds when the tracker does not answer.
    pub async fn diagnose(&self) -> Vec<Check> {
        let mut checks = vec![self.check_home(), self.check_authority().await, self.check_tracker().await];
        let Some(login) = self.current() else {
            let message = "nobody is logged in: `peer login USER`";
            checks.push(Check::new("session", Finding::Bad, message));
            return checks;
        };
        // Without the tracker nothing can be said of these.
        if checks.iter().all(|check| check.name != "tracker" || check.finding == Finding::Good) {
            checks.push(self.check_session(&login).await);
            checks.push(self.check_announce());
            checks.push(check_clock(self.announce.borrow().clock_offset));
        }
        checks.push(self.check_certificate());
        checks.push(self.check_port().await);
        checks.push(self.check_shares());
        checks.push(self.check_downloads());
        checks
    }

    fn check_home(&self) -> Check {
        let home = self.parts.home.directory();
        let probe = home.join(".doctor");
        let written = durable::write(&probe, b"", Readers::Owner).and_then(|()| std::fs::remove_file(&probe));
        if let Err(error) = written {
            return Check::new("home", Finding::Bad, format!("{}: {error}; free or mend it", home.display()));
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
        let advice = "copy the tracker's ca.pem here and name it with --ca or PEER_CA";
        Check::of("authority", self.parts.tracker.ca_pem().await, shown, advice)
    }

    async fn check_tracker(&self) -> Check {
        let tracker = &self.parts.tracker;
        let asked = async {
            let mut auth = tracker.auth_without_token().await?;
            tracker.within(auth.get_tracker_keys(pb::GetTrackerKeysRequest {})).await
        };
        let advice = "is `tracker-svc serve` running there, and is this its CA?";
        Check::of("tracker", asked.await, |_| format!("{} answers", tracker.url()), advice)
    }

    async fn check_session(&self, login: &super::Login) -> Check {
        let tracker = &self.parts.tracker;
        let asked = async {
            let mut auth = tracker.auth().await?;
            tracker.within(auth.who_am_i(pb::WhoAmIRequest {})).await
        };
        let user = &login.session.user;
        Check::of("session", asked.await, |_| format!("{user} is logged in"), "`peer login` again")
    }

    fn check_certificate(&self) -> Check {
        let identity = self.parts.identity.borrow().clone();
        let Some(identity) = identity else {
            let message = "there is none yet: the tracker must be reachable to issue one";
            return Check::new("certificate", Finding::Bad, message);
        };
        let left = identity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let name = identity.peer.tls_name();
        if left.is_zero() {
            let message = format!("{name} ran out; the tracker must be reachable to renew it");
            return Check::new("certificate", Finding::Bad, message);
        }
        let left = crate::units::seconds(left.as_secs());
        Check::new("certificate", Finding::Good, format!("{name}, good for {left} more"))
    }

    fn check_announce(&self) -> Check {
        let state = self.announce.borrow().clone();
        if state.connected {
            let seen = state.observed_ip.unwrap_or_else(|| "an unknown address".into());
            return Check::new(
                "announce",
                Finding::Good,
                format!("stands; the tracker sees this peer at {seen}"),
            );
        }
        let problem = state.problem.unwrap_or_else(|| "it is being opened".into());
        Check::new(
            "announce",
            Finding::Bad,
            format!("{problem}; others can't find this peer until it stands"),
        )
    }

    /// Dials this peer as others would.
    async fn check_port(&self) -> Check {
        let status = self.status();
        let (Some(identity), Some(address)) = (status.identity, status.advertise) else {
            return Check::new("port", Finding::Warning, "not known yet how others reach this peer");
        };
        let dialer = crate::identity::PeerDialer(self.parts.identity.subscribe());
        let dialled =
            tokio::time::timeout(Duration::from_secs(5), dialer.dial(identity.peer, &address)).await;
        match dialled {
            Ok(Ok(_)) => Check::new("port", Finding::Good, format!("{address} reaches this peer from here")),
            failed => {
                let why = failed.map_or_else(
                    |_| "no answer".into(),
                    |dialled| match dialled {
                        Ok(_) => String::new(),
                        Err(error) => error.to_string(),
                    },
                );
                let message = format!(
                    "{address} does not reach this peer from here ({why}); see --listen, --advertise and firewalls"
                );
                Check::new("port", Finding::Warning, message)
            }
        }
    }

    fn check_shares(&self) -> Check {
        let shares = self.shares().unwrap_or_default();
        let troubled: Vec<_> =
            shares.iter().filter_map(|share| Some((share, share.problem.as_ref()?))).collect();
        let Some((share, problem)) = troubled.first() else {
            return Check::new("shares", Finding::Good, format!("{} shared", shares.len()));
        };
        let (group, name) = (&share.entry.group, &share.entry.name);
        let message = format!("{} not offered; {name} of {group}: {}", troubled.len(), problem.message);
        Check::new("shares", Finding::Warning, message)
    }
    fn check_downloads(&self) -> Check {
        let all = self.downloads().unwrap_or_default();
        let mut troubled =
            all.iter().filter_map(|download| Some((download, download.view.problem.as_ref()?)));
        let Some((download, problem)) = troubled.next() else {
            return Check::new("downloads", Finding::Good, "none is in trouble");
        };
        let (group, name) = (&download.entry.group, &download.entry.name);
        let message = format!("{} in trouble; {name} of {group}: {}", 1 + troubled.count(), problem.message);
        Check::new("downloads", Finding::Warning, message)
    }
}

/// `offset` is what the tracker's clock is ahead of this one, in seconds.
fn check_clock(offset: i64) -> Check {
    let off = offset.unsigned_abs();
    let (finding, advice) = if off > CLOCK_OFF {
        (Finding::Bad, "; this peer serves nobody until it is set right (NTP)")
    } else if off > CLOCK_SKEW {
        (Finding::Warning, "; set it right (NTP), or tickets may be refused")
    } else {
        (Finding::Good, "")
    };
    Check::new("clock", finding, format!("{offset} s off the tracker's{advice}"))
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
            // What a tracker that says anything may come to.
            (i64::MIN, Finding::Bad),
            (i64::MAX, Finding::Bad),
        ] {
            let check = check_clock(offset);
            assert_eq!(check.finding, finding, "{offset}");
            assert!(check.message.starts_with(&format!("{offset} s off")), "{check:?}");
        }
    }
}
