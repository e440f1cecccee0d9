//! Makes the link of an invitation from what the tracker answers.

use std::{io, path::Path, time::Duration};

use proto::{
    domain::{
        FileName, GroupId,
        address::{Scope, scope},
        invite::{HostPort, InviteLink, MAX_TRACKERS},
    },
    reason::Reason,
};
use transport::{AuthorityFingerprint, fetch_authority, fingerprints};

use crate::tracker::list::url_parts;

/// How long a tracker may take to show its CA.
const LIMIT: Duration = Duration::from_secs(5);

/// The reason why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvitationError {
    /// The tracker has no CA.
    #[error("{0} serves without TLS, so a link could not say which tracker is the right one")]
    NoTls(String),
    /// There is no login.
    #[error("log in first, with `peer login USER`")]
    NotLoggedIn,
    /// The trusted CA can't be read.
    #[error("{0}: {1}")]
    Trusted(String, String, Reason),
    /// The tracker does not show its CA.
    #[error("{0} can't be reached: {1}")]
    Unreachable(String, String),
    /// The tracker shows a CA that this home does not trust.
    #[error("{0} shows another CA than the one in {1}")]
    AnotherAuthority(String, String),
    /// The tracker's answer is not usable.
    #[error("the tracker's answer has {0}")]
    Broken(&'static str),
    /// The name of the group or of the file is none.
    #[error("{0}")]
    BadName(String),
}

impl InvitationError {
    /// The reason that represents the error.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoTls(_) | Self::BadName(_) => Reason::InvalidRequest,
            Self::NotLoggedIn => Reason::NotLoggedIn,
            Self::Trusted(_, _, reason) => *reason,
            Self::Unreachable(..) | Self::AnotherAuthority(..) => Reason::TrackerUnreachable,
            Self::Broken(_) => Reason::Corrupt,
        }
    }
}

/// A link, and who can use it.
pub(crate) struct Link {
    pub(crate) text: String,
    /// Only this machine reaches the tracker, as far as anybody knows.
    pub(crate) is_local: bool,
}

/// The CA of the daemon's tracker: the one that the tracker shows and that the home trusts. Asked before an invitation is
/// made: its link is of no use if others can't verify the tracker.
///
/// # Errors
/// Fails when there is no such CA.
pub(crate) async fn authority(
    tracker: &str,
    trusted_ca: &Path,
) -> Result<AuthorityFingerprint, InvitationError> {
    let (scheme, host, port) = url_parts(tracker);
    if scheme == "http" {
        return Err(InvitationError::NoTls(tracker.to_owned()));
    }
    let path = trusted_ca.display().to_string();
    let pem = tokio::fs::read_to_string(trusted_ca).await.map_err(|error| match error.kind() {
        // A login keeps the CA there.
        io::ErrorKind::NotFound => InvitationError::NotLoggedIn,
        _ => InvitationError::Trusted(path.clone(), error.to_string(), Reason::of_io(&error)),
    })?;
    let trusted = fingerprints(&pem)
        .map_err(|error| InvitationError::Trusted(path.clone(), error.to_string(), Reason::Corrupt))?;
    let shown = shown_authority(host, port).await;
    let shown = shown.map_err(|why| InvitationError::Unreachable(tracker.to_owned(), why))?;
    if trusted.contains(&shown) {
        return Ok(shown);
    }
    Err(InvitationError::AnotherAuthority(tracker.to_owned(), path))
}

/// The CA that a tracker shows.
///
/// # Errors
/// Says why there is none, as text for people.
pub(crate) async fn shown_authority(host: &str, port: u16) -> Result<AuthorityFingerprint, String> {
    let shown = fetch_authority(host, port, LIMIT).await;
    shown.map(|shown| shown.fingerprint).map_err(|error| error.to_string())
}

/// The link of an invitation to a group, and to a file if one is named. The tracker made the secret, and told where it is.
///
/// # Errors
/// Fails when the answer or a name can't be used.
pub(crate) fn link(
    tracker: &str,
    authority: AuthorityFingerprint,
    group: &str,
    file: &str,
    secret: &str,
    told: &[String],
) -> Result<Link, InvitationError> {
    let bad =
        |text: &str, error: &dyn std::fmt::Display| InvitationError::BadName(format!("{text:?}: {error}"));
    let trackers = addresses(tracker, told);
    let is_local = trackers.iter().all(is_of_this_host);
    let file = Some(file).filter(|file| !file.is_empty());
    let link = InviteLink {
        trackers,
        group: group.parse::<GroupId>().map_err(|error| bad(group, &error))?,
        file: file.map(|file| file.parse::<FileName>().map_err(|error| bad(file, &error))).transpose()?,
        authority: *authority.as_bytes(),
        secret: secret.parse().map_err(|_| InvitationError::Broken("no secret"))?,
    };
    Ok(Link { text: link.text(), is_local })
}

/// The addresses that a link gives: the one that this peer uses, if others can use it too, and those that the tracker
/// knows. If there is none, the address that works here.
fn addresses(tracker: &str, told: &[String]) -> Vec<HostPort> {
    let (_, host, port) = url_parts(tracker);
    let own = HostPort::new(host, port).ok();
    let mut all: Vec<HostPort> = own.iter().filter(|own| !is_of_this_host(own)).cloned().collect();
    for address in told.iter().filter_map(|text| text.parse().ok()) {
        if !all.contains(&address) && !is_of_this_host(&address) {
            all.push(address);
        }
    }
    if all.is_empty() {
        all.extend(own);
    }
    all.truncate(MAX_TRACKERS);
    all
}

fn is_of_this_host(address: &HostPort) -> bool {
    let ip = address.host().parse();
    address.host() == "localhost" || ip.is_ok_and(|ip| scope(ip) != Scope::Network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_gives_what_others_can_reach() {
        let given = |tracker: &str, told: &[&str]| {
            let told: Vec<_> = told.iter().map(|text| (*text).to_owned()).collect();
            addresses(tracker, &told).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(given("https://files.example:7700", &[]), ["files.example:7700"]);
        assert_eq!(given("https://127.0.0.1:7700", &["10.0.0.1:7700"]), ["10.0.0.1:7700"]);
        assert_eq!(given("https://[::1]:7700", &["[fd00::1]:1", "nonsense", "t:1"]), ["[fd00::1]:1", "t:1"]);
        assert_eq!(given("https://10.0.0.1:7700", &["10.0.0.1:7700", "t:1"]), ["10.0.0.1:7700", "t:1"]);
        // Nothing better is known.
        assert_eq!(given("https://localhost:7700", &["127.0.0.1:7700"]), ["localhost:7700"]);
    }
}
