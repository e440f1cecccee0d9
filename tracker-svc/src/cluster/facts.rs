//! What trackers tell each other, as bytes. Unknown fields are ignored, so that two versions can share a network.

use bytes::Bytes;
use prost::Message as _;
use proto::{
    convert,
    domain::{FileId, PeerId, PieceLayout},
};

use crate::domain::{
    address::Addresses,
    others::Instance,
    swarm::{AnnouncingPeer, Fact, Share},
};

/// Bytes of the key of a fact: the file, then the peer.
pub(super) const KEY: usize = 48;

/// Why bytes from the board can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what another tracker wrote can't be read")]
pub(super) struct Unreadable;

#[derive(Clone, PartialEq, prost::Message)]
struct WireFact {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(uint64, tag = "2")]
    length: u64,
    /// 0: no piece, 1: some, 2: all.
    #[prost(uint32, tag = "3")]
    share: u32,
    #[prost(string, tag = "4")]
    user: String,
    #[prost(string, tag = "5")]
    addresses: String,
    #[prost(uint32, tag = "6")]
    others: u32,
    #[prost(uint32, tag = "7")]
    load: u32,
    #[prost(uint64, tag = "8")]
    since: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireChange {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// Empty if the peer no longer announces the file there.
    #[prost(bytes = "bytes", tag = "2")]
    fact: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireNews {
    #[prost(bytes = "bytes", tag = "1")]
    instance: Bytes,
    #[prost(uint32, tag = "2")]
    shard: u32,
    #[prost(uint64, tag = "3")]
    number: u64,
    #[prost(bool, tag = "4")]
    whole: bool,
    #[prost(message, repeated, tag = "5")]
    changes: Vec<WireChange>,
}

/// One change: the key of a fact, and the fact unless it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// See [`key`].
    pub(super) key: Bytes,
    /// See [`encode`].
    pub(super) fact: Option<Bytes>,
}

/// News of one tracker about one shard of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// The tracker.
    pub(super) instance: Instance,
    /// The shard.
    pub(super) shard: usize,
    /// Counts the news of the shard.
    pub(super) number: u64,
    /// Everything about the shard was written anew and has to be read.
    pub(super) whole: bool,
    /// What changed.
    pub(super) changes: Vec<Change>,
}

impl News {
    /// The news as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let changes = self.changes.iter().map(|Change { key, fact }| WireChange {
            key: key.clone(),
            fact: fact.clone().unwrap_or_default(),
        });
        let news = WireNews {
            instance: Bytes::copy_from_slice(&self.instance),
            shard: self.shard as u32,
            number: self.number,
            whole: self.whole,
            changes: changes.collect(),
        };
        news.encode_to_vec()
    }

    /// Reads news.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(super) fn decode(bytes: Bytes) -> Result<Self, Unreadable> {
        let WireNews { instance, shard, number, whole, changes } =
            WireNews::decode(bytes).map_err(|_| Unreadable)?;
        let instance = instance[..].try_into().map_err(|_| Unreadable)?;
        let change =
            |WireChange { key, fact }| Change { key, fact: Some(fact).filter(|fact| !fact.is_empty()) };
        Ok(Self {
            instance,
            shard: shard as usize,
            number,
            whole,
            changes: changes.into_iter().map(change).collect(),
        })
    }
}

/// The key of what is said about a peer and a file.
pub(super) fn key(peer: &PeerId, file: FileId) -> Bytes {
    [&file.as_bytes()[..], &peer.as_bytes()[..]].concat().into()
}

/// Reads a key.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn read_key(key: &[u8]) -> Result<(PeerId, FileId), Unreadable> {
    let (file, peer) = key.split_at_checked(KEY - 32).ok_or(Unreadable)?;
    let peer: [u8; 32] = peer.try_into().map_err(|_| Unreadable)?;
    Ok((peer.into(), FileId::try_from(file).map_err(|_| Unreadable)?))
}

/// The bytes of a fact about a peer whose stream was opened at `since`.
pub(super) fn encode(fact: &Fact, since: u64) -> Bytes {
    let (addresses, others) = fact.peer.addresses.parts();
    let fact = WireFact {
        group: fact.group.to_string(),
        length: fact.layout.length(),
        share: match fact.share {
            Share::Nothing => 0,
            Share::Some => 1,
            Share::All => 2,
        },
        user: fact.peer.user.to_string(),
        addresses: addresses.to_owned(),
        others,
        load: fact.peer.load,
        since,
    };
    fact.encode_to_vec().into()
}

/// Reads a fact with its key. Returns also since when the peer's stream is open.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn decode(key: &[u8], fact: &[u8]) -> Result<(Fact, u64), Unreadable> {
    let (id, file) = read_key(key)?;
    let WireFact { group, length, share, user, addresses, others, load, since } =
        WireFact::decode(fact).map_err(|_| Unreadable)?;
    let peer = AnnouncingPeer {
        id,
        user: convert::username(&user).map_err(|_| Unreadable)?,
        addresses: Addresses::of_parts(&addresses, others).ok_or(Unreadable)?,
        load,
    };
    let share = match share {
        0 => Share::Nothing,
        1 => Share::Some,
        _ => Share::All,
    };
    let layout = PieceLayout::new(length).ok_or(Unreadable)?;
    let group = convert::group_id(&group).map_err(|_| Unreadable)?;
    Ok((Fact { peer, group, file, layout, share }, since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_news_come_back_as_they_were() {
        let file = FileId::try_from(&[7; 16][..]).expect("a file id");
        let peer = AnnouncingPeer {
            id: PeerId::from([3; 32]),
            user: "ann".parse().expect("a username"),
            addresses: Addresses::of_parts("127.0.0.1:1,[2001:db8::1]:1", 12).expect("addresses"),
            load: 4,
        };
        let layout = PieceLayout::new(1_000_000).expect("a length");
        for share in [Share::Nothing, Share::Some, Share::All] {
            let group = "films".parse().expect("a group");
            let fact = Fact { peer: peer.clone(), group, file, layout, share };
            let (key, bytes) = (key(&peer.id, file), encode(&fact, 5));
            assert_eq!(key.len(), KEY);
            assert_eq!(decode(&key, &bytes), Ok((fact, 5)));
            let changes =
                vec![Change { key: key.clone(), fact: Some(bytes) }, Change { key: key.clone(), fact: None }];
            let news = News { instance: [9; 16], shard: 7, number: 8, whole: false, changes };
            assert_eq!(News::decode(news.encode().into()), Ok(news));
        }
    }

    #[test]
    fn what_is_no_fact_is_refused() {
        for bytes in [&b""[..], b"\xff\xff", &[0; 47], &[0; 49]] {
            assert_eq!(read_key(bytes), Err(Unreadable));
            assert_eq!(decode(&[0; 48], bytes), Err(Unreadable));
            assert!(News::decode(Bytes::copy_from_slice(bytes)).is_err());
        }
        assert!(Addresses::of_parts("a:1", 4).is_none());
        assert!(Addresses::of_parts("ü:1", 1).is_none());
    }
}
