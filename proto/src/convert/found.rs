//! The response of FindPeers, encoded without intermediate messages.
//!
//! A nested message is a run of bytes on the wire. So the tracker encodes each source directly, and does not
//! allocate and drop the strings of a [`pb::Source`] for each of 50 sources. A caller decodes only the
//! sources that it wants.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use crate::{
    domain::{FileId, PeerId, Username},
    pb::{self, FindPeersResponse},
};

/// A source of a file, as the tracker describes it to other peers.
#[derive(Clone, Copy, Debug)]
pub struct Found<'s> {
    /// The peer's id.
    pub id: PeerId,
    /// The peer's user.
    pub user: &'s Username,
    /// The addresses to reach the peer at, separated by commas; empty for none.
    pub addresses: &'s str,
    /// The name of the token that the peer was certified for; empty if it is a person's, or not told.
    pub token: &'s str,
    /// The number of pieces that the peer has.
    pub pieces: u32,
    /// The number of its uploads, running and waiting.
    pub load: u32,
}

/// Bytes that an encoded source rarely exceeds: 130 for its id and name, the rest for addresses and user.
const USUAL: usize = 224;

impl FindPeersResponse {
    /// Encodes the sources of a file.
    pub fn new<'s>(file: FileId, sources: impl ExactSizeIterator<Item = Found<'s>>) -> Self {
        let mut buffer = BytesMut::with_capacity(USUAL * sources.len());
        let encoded = sources.map(|source| {
            source.encode(&mut buffer);
            buffer.split().freeze()
        });
        Self {
            sources: encoded.collect(),
            file_id: Bytes::copy_from_slice(file.as_bytes()),
            next_page_token: String::new(),
        }
    }

    /// Decodes the sources.
    ///
    /// # Errors
    /// Fails if the bytes of an entry are not a `Source`.
    pub fn read(&self) -> Result<Vec<pb::Source>, DecodeError> {
        self.sources.iter().map(|source| pb::Source::decode(source.clone())).collect()
    }
}

impl Found<'_> {
    /// The source as a message.
    pub fn message(&self) -> pb::Source {
        pb::Source {
            peer: Some(pb::PeerAddress {
                peer_id: self.id.to_string(),
                tls_name: self.id.tls_name(),
                addresses: split(self.addresses).map(ToOwned::to_owned).collect(),
                username: self.user.as_str().to_owned(),
                token: self.token.to_owned(),
            }),
            pieces: self.pieces.into(),
            load: self.load,
        }
    }

    /// Writes the encoding of [`Found::message`].
    fn encode(&self, into: &mut impl BufMut) {
        let id = self.id.text();
        let tls_name = [&id[..], PeerId::TLS_SUFFIX.as_bytes()];
        let nothing: &[u8] = &[];
        // Each text, in two parts, with its field number in PeerAddress.
        let texts = || {
            [(1, [&id[..], nothing]), (2, tls_name)]
                .into_iter()
                .chain(split(self.addresses).map(|address| (3, [address.as_bytes(), nothing])))
                .chain([(4, [self.user.as_str().as_bytes(), nothing])])
                .chain(Some((5, [self.token.as_bytes(), nothing])).filter(|_| !self.token.is_empty()))
        };
        let length = |parts: [&[u8]; 2]| parts.map(<[u8]>::len).iter().sum::<usize>() as u64;
        encode_key(1, WireType::LengthDelimited, into);
        // Each key takes one byte.
        let lengths = texts().map(|(_, parts)| length(parts));
        encode_varint(lengths.map(|length| 1 + encoded_len_varint(length) as u64 + length).sum(), into);
        for (number, parts) in texts() {
            encode_key(number, WireType::LengthDelimited, into);
            encode_varint(length(parts), into);
            parts.iter().for_each(|part| into.put_slice(part));
        }
        for (number, value) in [(2, self.pieces), (3, self.load)] {
            if value != 0 {
                encode_key(number, WireType::Varint, into);
                encode_varint(value.into(), into);
            }
        }
    }
}

/// Splits addresses that are separated by commas.
pub fn split(addresses: &str) -> impl Iterator<Item = &str> {
    addresses.split(',').filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn it_is_what_the_messages_would_be() {
        let long = format!("{}.example:65535", "a".repeat(240));
        let user: Username = "ann".parse().unwrap();
        let found = |byte, addresses, pieces, load| Found {
            id: PeerId::from([byte; 32]),
            user: &user,
            addresses,
            token: if byte == 3 { "ci" } else { "" },
            pieces,
            load,
        };
        let all = [
            found(0, "192.0.2.1:7000", 0, 0),
            found(200, &long, 1, 300),
            found(255, "192.0.2.1:1,[2001:db8::1]:1", u32::MAX, u32::MAX),
            found(3, "", 1, 1),
        ];
        let file = FileId::try_from(&[7; 16][..]).unwrap();
        let answer = FindPeersResponse::new(file, all.iter().copied());
        assert_eq!(answer.file_id, file.as_bytes().to_vec());
        for (encoded, found) in answer.sources.iter().zip(&all) {
            assert_eq!(encoded, &found.message().encode_to_vec());
        }
        assert_eq!(answer.read().unwrap(), all.iter().map(Found::message).collect::<Vec<_>>());
        let sent = FindPeersResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        assert_eq!(sent, answer);
        let bad = FindPeersResponse { sources: vec![Bytes::from_static(b"\xff")], ..answer };
        assert!(bad.read().is_err());
    }
}
