//! What a peer meets when it can't connect to another one.

/// The reason why a connection to an address failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The host refuses connections to the port.
    Refused,
    /// Nothing answers.
    Silent,
    /// This host has no route to the address.
    NoRoute,
    /// The connecting host does not permit the connection.
    Forbidden,
    /// The host name is not known.
    UnknownName,
    /// Something answers that is not this peer.
    AnotherPeer,
    /// The certificates are not valid at the time that a clock shows.
    Clock,
    /// Something else.
    Other,
}

impl Obstacle {
    /// The obstacle in words, for the side that was not reached.
    pub fn words(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Silent => "no answer",
            Self::NoRoute => "no route to the host",
            Self::Forbidden => "that host does not permit the connection",
            Self::UnknownName => "the name is not known there",
            Self::AnotherPeer => "another program answers at that address",
            Self::Clock => "the certificates are not valid at the time that a clock shows",
            Self::Other => "the connection failed",
        }
    }

    /// What to do about it; empty if there is no advice.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Refused | Self::Silent => "is a firewall in between?",
            Self::NoRoute => "this host has no route there",
            Self::Forbidden => "allow it in this host's firewall",
            Self::UnknownName => "see --advertise there",
            Self::AnotherPeer => "see --advertise there",
            Self::Clock => "set the clocks of both hosts right (NTP)",
            Self::Other => "",
        }
    }
}
