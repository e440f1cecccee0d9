//! Says in words why a source can't be used: who, at which address, what happened, and what to do.

pub use domain::obstacle::Obstacle;

/// A failed attempt to connect to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address that was tried.
    pub address: String,
    /// The kind of failure.
    pub obstacle: Obstacle,
    /// The failure in words.
    pub error: String,
}

/// Says that a user's peer could not be reached: `alice at 10.9.0.1:39479: connection refused; is a firewall
/// in between?` A peer without addresses has no attempts.
pub fn unreached(user: &str, attempts: &[Attempt]) -> String {
    let Some(first) = attempts.first() else {
        return format!("{user} has no address that other hosts can reach; see `peer doctor` there");
    };
    let tried: Vec<_> =
        attempts.iter().map(|attempt| format!("at {}: {}", attempt.address, attempt.error)).collect();
    // The first obstacle that is not just a missing route says most: a host often has only one family.
    let telling = attempts.iter().find(|attempt| attempt.obstacle != Obstacle::NoRoute).unwrap_or(first);
    let remedy = telling.obstacle.remedy();
    let separator = if remedy.is_empty() { "" } else { "; " };
    format!("{user} {}{separator}{remedy}", tried.join(", and "))
}

/// Joins the troubles of several sources. The first two are named.
pub fn all_troubles(troubles: &[String]) -> String {
    match troubles {
        [] => "no source can be reached".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one}. {two}"),
        [one, two, rest @ ..] => format!("{one}. {two}. And {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(address: &str, obstacle: Obstacle, error: &str) -> Attempt {
        Attempt { address: address.into(), obstacle, error: error.into() }
    }

    #[test]
    fn the_address_the_error_and_the_remedy_are_named() {
        let refused = attempt("10.9.0.1:39479", Obstacle::Refused, "connection refused");
        assert_eq!(
            unreached("alice", std::slice::from_ref(&refused)),
            "alice at 10.9.0.1:39479: connection refused; is a firewall in between?"
        );
        let no_route = attempt("[fd00::1]:39479", Obstacle::NoRoute, "network is unreachable");
        assert_eq!(
            unreached("alice", &[no_route, refused]),
            "alice at [fd00::1]:39479: network is unreachable, and at 10.9.0.1:39479: connection refused; \
             is a firewall in between?"
        );
        let forbidden = attempt("a:1", Obstacle::Forbidden, "this host does not permit the connection");
        assert!(unreached("alice", &[forbidden]).ends_with("; allow it in this host's firewall"));
        assert_eq!(unreached("alice", &[attempt("a:1", Obstacle::Other, "broken")]), "alice at a:1: broken");
        assert!(unreached("alice", &[]).contains("no address"));
    }

    #[test]
    fn many_troubles_are_counted() {
        let troubles: Vec<_> = ["a", "b", "c", "d"].map(str::to_owned).into();
        assert_eq!(all_troubles(&troubles), "a. b. And 2 more");
        assert_eq!(all_troubles(&troubles[..1]), "a");
        assert_eq!(all_troubles(&[]), "no source can be reached");
    }
}
