//! The answer to FindPeers, written without the messages that it is made of.
//!
//! On the wire a message within another is a run of bytes. So the tracker writes each source as it finds it, without the
//! strings of a [`pb::Source`] being made and dropped again for each of 50, and a caller reads those that it wants.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use crate::{
    domain::{FileId, PeerId, Username},
    pb,
};

/// `FindPeersResponse` of the .proto.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FindPeersResponse {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub file_id: Bytes,
    /// In the order of the selection policy; each a [`pb::Source`], encoded.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub sources: Vec<Bytes>,
}

/// A source of a file, as others are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'s> {
    /// Which peer.
    pub id: PeerId,
    /// Whose.
    pub user: &'s Username,
    /// Where to reach it.
    pub address: &'s str,
    /// Pieces that it holds.
    pub pieces: u32,
    /// Uploads that it has running and waiting.
    pub load: u32,
}

/// Bytes that a source seldom exceeds: 130 of its id and name, the rest of address and user.
const USUAL: usize = 192;

impl FindPeersResponse {
    /// The sources of a file.
    pub fn new<'s>(file: FileId, sources: impl ExactSizeIterator<Item = Found<'s>>) -> Self {
        let mut buffer = BytesMut::with_capacity(USUAL * sources.len());
        let encoded = sources.map(|source| {
            source.encode(&mut buffer);
            buffer.split().freeze()
        });
        Self { sources: encoded.collect(), file_id: Bytes::copy_from_slice(file.as_bytes()) }
    }

    /// The sources, read.
    ///
    /// # Errors
    /// When one is none.
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
                addresses: vec![self.address.to_owned()],
                username: self.user.as_str().to_owned(),
            }),
            pieces: self.pieces.into(),
            load: self.load,
        }
    }

    /// As [`Found::message`] encodes.
    fn encode(&self, into: &mut impl BufMut) {
        let id = self.id.text();
        let tls_name = [&id[..], PeerId::TLS_SUFFIX.as_bytes()];
        let (address, user) = ([self.address.as_bytes()], [self.user.as_str().as_bytes()]);
        // By their numbers in PeerAddress.
        let texts: [(u32, &[&[u8]]); 4] = [(1, &[&id]), (2, &tls_name), (3, &address), (4, &user)];
        let length = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>() as u64;
        let lengths = texts.map(|(_, parts)| length(parts));
        encode_key(1, WireType::LengthDelimited, into);
        // A key of a byte each.
        encode_varint(
            lengths.iter().map(|&length| 1 + encoded_len_varint(length) as u64 + length).sum(),
            into,
        );
        for ((number, parts), length) in texts.into_iter().zip(lengths) {
            encode_key(number, WireType::LengthDelimited, into);
            encode_varint(length, into);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn it_is_what_the_messages_would_be() {
        let long = format!("{}.example:65535", "a".repeat(240));
        let user: Username = "ann".parse().unwrap();
        let found = |byte, address, pieces, load| Found {
            id: PeerId::from([byte; 32]),
            user: &user,
            address,
            pieces,
            load,
        };
        let all = [
            found(0, "192.0.2.1:7000", 0, 0),
            found(200, &long, 1, 300),
            found(255, "[2001:db8::1]:1", u32::MAX, u32::MAX),
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
