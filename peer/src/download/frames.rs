//! Parses the body of a `GetChunk` answer as it arrives.
//!
//! It is written by hand for speed: data is passed on as slices of what the transport read, without a copy,
//! and before its message is complete. The other peer may be hostile. Frames may be split anywhere, fields
//! may come in any order or not at all, and lengths may be wrong. No allocation depends on a claimed length.

use bytes::{Buf as _, Bytes, BytesMut};
use proto::domain::limits::MAX_CHUNK;

/// The most bytes of a message besides its data.
const MAX_OTHER: u64 = 4 << 10;
/// The most messages in a row without data. An honest peer sends one whenever its queue moves. Without a
/// limit, a peer that sends nothing else would keep a core busy.
const MAX_DATALESS: u32 = 10_000;

/// An item that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The request waits at this place in the queue.
    Place(u32),
    /// Data of a piece, at this offset into it.
    Data { piece: u64, offset: u64, data: Bytes },
}

/// The bytes are not a valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is malformed: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// The parser of one body.
#[derive(Debug, Default)]
pub(super) struct Frames {
    state: State,
    /// The bytes of the current message that have not been parsed.
    left: u64,
    message: Message,
    /// The number of messages since the last data, including the current one.
    dataless: u32,
    /// The beginning of a number or a prefix that is not complete yet.
    partial: Partial,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Prefix,
    Key,
    Number(u64),
    Length(u64),
    Data {
        left: u64,
    },
    Skip {
        left: u64,
    },
}

#[derive(Debug, Default)]
struct Message {
    piece: Option<u64>,
    offset: Option<u64>,
    place: u64,
    /// Data that arrived before the number of its piece. Kept until the message ends.
    early: BytesMut,
    /// The bytes of data so far.
    length: u64,
}

#[derive(Debug, Default)]
struct Partial {
    bytes: [u8; 10],
    filled: usize,
}

impl Partial {
    /// Takes bytes until there are `count`.
    fn fill(&mut self, count: usize, from: &mut Bytes) -> Option<&[u8]> {
        let take = (count - self.filled).min(from.len());
        self.bytes[self.filled..self.filled + take].copy_from_slice(&from[..take]);
        self.filled += take;
        from.advance(take);
        if self.filled < count {
            return None;
        }
        self.filled = 0;
        Some(&self.bytes[..count])
    }

    /// Takes bytes until they make a varint. `left` is the number of bytes left in the message.
    fn varint(&mut self, from: &mut Bytes, left: &mut u64) -> Result<Option<u64>, Malformed> {
        while !from.is_empty() {
            if *left == 0 {
                return Err(Malformed("a message ends inside a number"));
            }
            let byte = from.get_u8();
            *left -= 1;
            self.bytes[self.filled] = byte;
            self.filled += 1;
            if byte & 0x80 == 0 {
                let bytes = &self.bytes[..std::mem::take(&mut self.filled)];
                if bytes.len() == 10 && byte > 1 {
                    return Err(Malformed("a number has more than 64 bits"));
                }
                let number =
                    bytes.iter().rev().fold(0u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
                return Ok(Some(number));
            }
            if self.filled == self.bytes.len() {
                return Err(Malformed("a number has more than 10 bytes"));
            }
        }
        Ok(None)
    }
}

impl Frames {
    /// Returns the next item, and removes the bytes that were parsed. Returns `None` if more bytes are
    /// needed.
    ///
    /// # Errors
    /// Fails when the bytes are not valid. Nothing can be read after that.
    pub(super) fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Item>, Malformed> {
        while !bytes.is_empty() {
            let item = self.advance(bytes)?;
            if let State::Data { left: 0 } | State::Skip { left: 0 } = self.state {
                self.state = State::Key;
            }
            if item.is_some() {
                return Ok(item);
            }
            if self.state == State::Key && self.left == 0 && self.partial.filled == 0 {
                self.state = State::Prefix;
                if let Some(item) = std::mem::take(&mut self.message).end() {
                    return Ok(Some(item));
                }
            }
        }
        Ok(None)
    }

    /// Makes one step of the parser.
    fn advance(&mut self, bytes: &mut Bytes) -> Result<Option<Item>, Malformed> {
        match self.state {
            State::Prefix => {
                let Some(prefix) = self.partial.fill(5, bytes) else { return Ok(None) };
                if prefix[0] != 0 {
                    return Err(Malformed("a message is compressed"));
                }
                self.left = u64::from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]));
                if self.left > MAX_CHUNK as u64 + MAX_OTHER {
                    return Err(Malformed("a message is longer than the limit"));
                }
                self.dataless += 1;
                if self.dataless > MAX_DATALESS {
                    return Err(Malformed("too many messages contain no data"));
                }
                self.state = State::Key;
            }
            // A message that ended with data ends here. The loop in `next` ends all other messages.
            State::Key if self.left == 0 && self.partial.filled == 0 => {
                std::mem::take(&mut self.message);
                self.state = State::Prefix;
            }
            State::Key => {
                if let Some(key) = self.partial.varint(bytes, &mut self.left)? {
                    self.state = match (key >> 3, key & 7) {
                        (0, _) => return Err(Malformed("a field has the number 0")),
                        (field, 0) => State::Number(field),
                        (field, 2) => State::Length(field),
                        (_, 1) => State::Skip { left: 8 },
                        (_, 5) => State::Skip { left: 4 },
                        _ => return Err(Malformed("a field has an unknown wire type")),
                    };
                }
            }
            State::Number(field) => {
                if let Some(number) = self.partial.varint(bytes, &mut self.left)? {
                    self.message.number(field, number)?;
                    self.state = State::Key;
                }
            }
            State::Length(field) => {
                if let Some(length) = self.partial.varint(bytes, &mut self.left)? {
                    if length > self.left {
                        return Err(Malformed("a field is longer than its message"));
                    }
                    if field == 3 && length + self.message.length > MAX_CHUNK as u64 {
                        return Err(Malformed("a chunk is longer than the limit"));
                    }
                    self.state =
                        if field == 3 { State::Data { left: length } } else { State::Skip { left: length } };
                }
            }
            State::Data { left } => {
                let data = self.take(left, bytes)?;
                if !data.is_empty() {
                    self.dataless = 0;
                }
                self.state = State::Data { left: left - data.len() as u64 };
                return Ok(self.message.data(data));
            }
            State::Skip { left } => {
                let skipped = self.take(left, bytes)?;
                self.state = State::Skip { left: left - skipped.len() as u64 };
            }
        }
        Ok(None)
    }

    /// Whether the body may end here.
    pub(super) fn is_between_messages(&self) -> bool {
        let at_end = self.state == State::Prefix || (self.state == State::Key && self.left == 0);
        at_end && self.partial.filled == 0
    }

    fn take(&mut self, most: u64, from: &mut Bytes) -> Result<Bytes, Malformed> {
        if most > self.left {
            return Err(Malformed("a field is longer than its message"));
        }
        let count = most.min(from.len() as u64);
        self.left -= count;
        Ok(from.split_to(count as usize))
    }
}

impl Message {
    fn number(&mut self, field: u64, number: u64) -> Result<(), Malformed> {
        // Data is passed on as it arrives, so its piece and offset can't be changed afterwards.
        let passed_on = self.length > 0 && self.early.is_empty();
        match field {
            1 if passed_on && self.piece != Some(number) => Err(Malformed("a chunk has two piece indices")),
            2 if passed_on && self.offset.unwrap_or(0) != number => Err(Malformed("a chunk has two offsets")),
            1 => {
                self.piece = Some(number);
                Ok(())
            }
            2 => {
                self.offset = Some(number);
                Ok(())
            }
            4 => {
                self.place = number;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn data(&mut self, data: Bytes) -> Option<Item> {
        let before = self.length;
        self.length += data.len() as u64;
        match self.piece {
            // Encoders put fields in order and omit zeros. Data is kept back if they don't, and for piece 0,
            // whose number is omitted.
            Some(piece) if self.early.is_empty() => {
                let offset = self.offset.unwrap_or(0).saturating_add(before);
                (!data.is_empty()).then_some(Item::Data { piece, offset, data })
            }
            _ => {
                self.early.extend_from_slice(&data);
                None
            }
        }
    }

    fn end(self) -> Option<Item> {
        if !self.early.is_empty() {
            let (piece, offset) = (self.piece.unwrap_or(0), self.offset.unwrap_or(0));
            return Some(Item::Data { piece, offset, data: self.early.freeze() });
        }
        let place = u32::try_from(self.place).unwrap_or(u32::MAX);
        (place != 0 && self.length == 0).then_some(Item::Place(place))
    }
}

/// Parses a body that arrives in these cuts. Returns piece, offset and data of each chunk; adjacent chunks are
/// joined. For a fuzz target.
#[cfg(fuzzing)]
#[allow(clippy::result_unit_err, reason = "which error it is may depend on the cuts")]
pub fn parse(body: &[u8], cuts: &[u16]) -> Result<Vec<(u64, u64, Vec<u8>)>, ()> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    let (mut frames, mut chunks) = (Frames::default(), Vec::<(u64, u64, Vec<u8>)>::new());
    for pair in cuts.windows(2) {
        let mut bytes = Bytes::copy_from_slice(&body[pair[0]..pair[1]]);
        while let Some(item) = frames.next(&mut bytes).map_err(drop)? {
            let Item::Data { piece, offset, data } = item else { continue };
            match chunks.last_mut() {
                Some((last, from, joined))
                    if *last == piece && from.checked_add(joined.len() as u64) == Some(offset) =>
                {
                    joined.extend_from_slice(&data);
                }
                _ => chunks.push((piece, offset, data.to_vec())),
            }
        }
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::{BufMut as _, BytesMut};
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::pb::GetChunkResponse;

    use super::*;

    fn feed(frames: &mut Frames, bytes: &[u8], items: &mut Vec<Item>) -> Result<(), Malformed> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while let Some(item) = frames.next(&mut bytes)? {
            items.push(item);
        }
        assert!(bytes.is_empty());
        Ok(())
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.put_u32(message.len() as u32);
        bytes.extend_from_slice(message);
        bytes
    }

    /// The items that were read, with adjacent data joined.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Item>, Malformed> {
        let mut frames = Frames::default();
        let mut items = Vec::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            feed(&mut frames, &bytes[pair[0]..pair[1]], &mut items)?;
        }
        assert!(frames.is_between_messages());
        let mut joined: Vec<Item> = Vec::new();
        for item in items {
            match (joined.last_mut(), item) {
                (Some(Item::Data { piece, offset, data }), Item::Data { piece: p, offset: o, data: d })
                    if *piece == p && *offset + data.len() as u64 == o =>
                {
                    let mut both = BytesMut::from(&data[..]);
                    both.extend_from_slice(&d);
                    *data = both.freeze();
                }
                (_, item) => joined.push(item),
            }
        }
        Ok(joined)
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(
            messages in prop::collection::vec((0u64..5, 0u64..300, 0usize..300, 0u32..3), 1..6),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut bytes = Vec::new();
            for (piece_index, offset, length, queue_place) in messages {
                let data = vec![7; length].into();
                let message = GetChunkResponse { piece_index, offset, data, queue_place };
                bytes.extend(framed(&message.encode_to_vec()));
            }
            prop_assert_eq!(read(&bytes, &cuts), read(&bytes, &[]));
        }

        #[test]
        fn noise_is_refused_or_read_but_never_more_than_it_is(noise in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut items = Vec::new();
            let _ = feed(&mut Frames::default(), &noise, &mut items);
            let data: usize = items.iter().map(|item| if let Item::Data { data, .. } = item { data.len() } else { 0 }).sum();
            prop_assert!(data <= noise.len());
        }
    }

    #[test]
    fn fields_may_come_in_any_order() {
        let canonical = GetChunkResponse { piece_index: 3, offset: 9, data: "abc".into(), queue_place: 0 };
        let expected = vec![Item::Data { piece: 3, offset: 9, data: "abc".into() }];
        assert_eq!(read(&framed(&canonical.encode_to_vec()), &[]), Ok(expected.clone()));
        // Data first, an unknown field of each kind, then offset and piece.
        let mut message = b"\x1a\x03abc".to_vec();
        message.extend(b"\x28\x07\x31\0\0\0\0\0\0\0\0\x3a\x02xx\x45\0\0\0\0");
        message.extend(b"\x10\x09\x08\x03");
        for cut in 0..=message.len() + 5 {
            assert_eq!(read(&framed(&message), &[cut]), Ok(expected.clone()));
        }
    }

    #[test]
    fn piece_0_and_places_are_told() {
        let first = GetChunkResponse { data: "abc".into(), ..Default::default() };
        let waiting = GetChunkResponse { queue_place: 2, ..Default::default() };
        let empty = GetChunkResponse::default();
        let bytes = [&first, &waiting, &empty].map(|message| framed(&message.encode_to_vec())).concat();
        let expected = vec![Item::Data { piece: 0, offset: 0, data: "abc".into() }, Item::Place(2)];
        assert_eq!(read(&bytes, &[]), Ok(expected));
    }

    #[test]
    fn data_is_passed_on_before_its_message_is_whole() {
        let message =
            GetChunkResponse { piece_index: 1, offset: 5, data: vec![1; 100].into(), queue_place: 0 };
        let bytes = framed(&message.encode_to_vec());
        let mut items = Vec::new();
        feed(&mut Frames::default(), &bytes[..50], &mut items).unwrap();
        assert!(matches!(&items[..], [Item::Data { piece: 1, offset: 5, data }] if data.len() > 30));
    }

    #[test]
    fn a_message_that_ends_inside_a_number_is_refused_wherever_it_is_cut() {
        let bytes = b"\0\0\0\0\x03\x9d\x9c\xf3\0";
        for cut in 0..bytes.len() {
            let found = read(bytes, &[cut]);
            assert_eq!(found, Err(Malformed("a message ends inside a number")), "cut at {cut}");
        }
    }

    #[test]
    fn lies_are_refused() {
        let long = [&[0, 0, 8, 0x20, 0][..], &[0x1a, 0x81, 0x80, 0x20]].concat();
        let cases: [&[u8]; 9] = [
            b"\x01\0\0\0\x01\0",
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\x02\x1a\x05",
            b"\0\0\0\0\x02\x08\x80\x01",
            b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\0\0\0\0\x0c\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\0\x02\x0b\0",
            b"\0\0\0\0\x02\x00\0",
            &long,
        ];
        for case in cases {
            let mut items = Vec::new();
            assert!(feed(&mut Frames::default(), case, &mut items).is_err(), "{case:?}");
        }
        let two = b"\0\0\0\0\x07\x08\x01\x1a\x01x\x08\x02";
        assert!(feed(&mut Frames::default(), two, &mut Vec::new()).is_err());
    }

    #[test]
    fn messages_without_data_do_not_go_on_for_ever() {
        let place = framed(&GetChunkResponse { queue_place: 1, ..Default::default() }.encode_to_vec());
        let data = framed(&GetChunkResponse { data: "x".into(), ..Default::default() }.encode_to_vec());
        for message in [framed(&[]), place] {
            let many = message.repeat(MAX_DATALESS as usize);
            let mut frames = Frames::default();
            for _ in 0..2 {
                feed(&mut frames, &many[message.len()..], &mut Vec::new()).unwrap();
                feed(&mut frames, &data, &mut Vec::new()).unwrap();
            }
            assert!(feed(&mut frames, &[&many[..], &message].concat(), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_cut_message_is_noticed() {
        let message =
            GetChunkResponse { piece_index: 1, offset: 5, data: vec![1; 100].into(), queue_place: 0 };
        let bytes = framed(&message.encode_to_vec());
        for length in 1..bytes.len() {
            let mut frames = Frames::default();
            feed(&mut frames, &bytes[..length], &mut Vec::new()).unwrap();
            assert!(!frames.is_between_messages(), "{length}");
        }
    }
}
