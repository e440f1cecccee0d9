//! A peer's uplink: the streams that run share it evenly, a small quantum at a time.

use std::collections::VecDeque;

use peer::domain::{Moment, download, upload};
use proto::domain::PieceIndex;

use super::No;

/// Bytes of one stream that go out before it is another's turn.
const QUANTUM: u32 = 32 << 10;

/// See the module.
pub(super) struct Uplink {
    streams: VecDeque<Stream>,
    current: Option<Quantum>,
    /// Bytes of small messages that go before the next quantum.
    pub(super) small: u64,
    /// Until when what was begun goes out.
    pub(super) busy_until: Moment,
}

/// What a source sends for one request.
struct Stream {
    call: upload::RequestId,
    to: No,
    request: download::RequestId,
    parts: VecDeque<Part>,
    /// How it ends, once all is out.
    end: Option<Result<(), download::Failure>>,
    /// The receiver takes no more before this moment.
    ready: Moment,
}

/// A piece: so much was handed to the transport, so much of it has gone out.
struct Part {
    piece: PieceIndex,
    length: u32,
    /// Bytes of its first chunk: it is known of at the other end when they are all there.
    first: u32,
    handed: u32,
    out: u32,
}

/// A quantum on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantum {
    pub(super) call: upload::RequestId,
    pub(super) to: No,
    pub(super) request: download::RequestId,
    pub(super) piece: PieceIndex,
    pub(super) bytes: u32,
    pub(super) first: bool,
    pub(super) last: bool,
}

/// What the transport asks a stream for.
pub(super) enum Wants {
    /// So many bytes more.
    Chunk(u32),
    /// Whatever comes after the piece.
    Next,
}

/// Whom to tell how a stream ended.
pub(super) type Ending = (No, download::RequestId, Result<(), download::Failure>);

impl Uplink {
    pub(super) fn new() -> Self {
        Self { streams: VecDeque::new(), current: None, small: 0, busy_until: Moment::ZERO }
    }

    /// A piece is to be sent for a request.
    pub(super) fn send(
        &mut self,
        call: upload::RequestId,
        to: No,
        request: download::RequestId,
        piece: PieceIndex,
        length: u32,
    ) {
        let part = Part { piece, length, first: 0, handed: 0, out: 0 };
        if let Some(stream) = self.find(call) {
            stream.parts.push_back(part);
        } else {
            let parts = VecDeque::from([part]);
            self.streams.push_back(Stream { call, to, request, parts, end: None, ready: Moment::ZERO });
        }
    }

    /// Something was sent for the request, or is to be.
    pub(super) fn is_open(&self, call: upload::RequestId) -> bool {
        self.streams.iter().any(|stream| stream.call == call)
    }

    fn find(&mut self, call: upload::RequestId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.call == call)
    }

    /// Takes a chunk, if the transport has room for it.
    pub(super) fn hand_over(
        &mut self,
        call: upload::RequestId,
        chunk: impl Fn(u32) -> u32,
        ahead: u32,
    ) -> Option<Wants> {
        let stream = self.find(call)?;
        let waiting: u32 = stream.parts.iter().map(|part| part.handed - part.out).sum();
        let last = stream.parts.back_mut()?;
        if waiting >= ahead || stream.end.is_some() {
            return None;
        }
        if last.handed == last.length {
            return Some(Wants::Next);
        }
        let bytes = chunk(last.handed).min(last.length - last.handed);
        if last.handed == 0 {
            last.first = bytes;
        }
        last.handed += bytes;
        Some(Wants::Chunk(bytes))
    }

    /// The stream ends once all that was handed over is out; at once if all is.
    pub(super) fn end(
        &mut self,
        call: upload::RequestId,
        end: Result<(), download::Failure>,
    ) -> Option<Ending> {
        self.find(call)?.end = Some(end);
        self.take_ended(call)
    }

    /// The stream, if it is over.
    fn take_ended(&mut self, call: upload::RequestId) -> Option<Ending> {
        let at = self.streams.iter().position(|stream| stream.call == call)?;
        let stream = &self.streams[at];
        let on_its_way = self.current.is_some_and(|quantum| quantum.call == call);
        let is_out = !on_its_way && stream.parts.iter().all(|part| part.out == part.handed);
        let ending = (stream.to, stream.request, stream.end?);
        is_out.then(|| self.streams.remove(at))?;
        Some(ending)
    }

    /// Its receiver dropped the stream, of which so many bytes go out all the same.
    pub(super) fn drop_stream(&mut self, call: upload::RequestId, socket: u32) {
        let Some(stream) = self.find(call) else { return };
        let mut left = socket;
        for part in &mut stream.parts {
            let stays = left.min(part.handed - part.out);
            part.handed = part.out + stays;
            left -= stays;
        }
        stream.end = Some(Ok(()));
        self.take_ended(call);
    }

    /// Begins the next quantum, unless one is on its way. Otherwise says when to try again, if it is known.
    pub(super) fn begin(
        &mut self,
        now: Moment,
        takes: impl Fn(No) -> bool,
    ) -> Result<Quantum, Option<Moment>> {
        if self.current.is_some() {
            return Err(None);
        }
        let mut ready: Option<Moment> = None;
        for _ in 0..self.streams.len() {
            self.streams.rotate_left(1);
            let Some(stream) = self.streams.back_mut() else { break };
            let Some(part) = stream.parts.iter_mut().find(|part| part.out < part.handed) else { continue };
            if !takes(stream.to) {
                continue;
            }
            if stream.ready > now {
                ready = Some(ready.map_or(stream.ready, |ready| ready.min(stream.ready)));
                continue;
            }
            let first = part.out == 0;
            let most = if first { part.first } else { QUANTUM };
            let bytes = most.min(part.handed - part.out);
            part.out += bytes;
            let quantum = Quantum {
                call: stream.call,
                to: stream.to,
                request: stream.request,
                piece: part.piece,
                bytes,
                first,
                last: part.out == part.length,
            };
            self.current = Some(quantum);
            return Ok(quantum);
        }
        Err(ready)
    }

    /// The quantum is out. Also returns how its stream ended, if that was the last of it.
    pub(super) fn finish(&mut self) -> Option<(Quantum, Option<Ending>)> {
        let quantum = self.current.take()?;
        if let Some(stream) = self.find(quantum.call) {
            while stream.parts.len() > 1 && stream.parts[0].out == stream.parts[0].length {
                stream.parts.pop_front();
            }
        }
        Some((quantum, self.take_ended(quantum.call)))
    }

    /// The receiver of the stream takes no more of it before then.
    pub(super) fn hold(&mut self, call: upload::RequestId, until: Moment) {
        if let Some(stream) = self.find(call) {
            stream.ready = until;
        }
    }
}
