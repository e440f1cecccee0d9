//! A peer's uplink. The running streams share it evenly, one small quantum at a time.

use std::collections::VecDeque;

use domain::PieceIndex;
use peer_core::{Moment, download, upload};

use super::No;

/// Bytes of one stream that are sent before the next stream's turn.
const QUANTUM: u32 = 32 << 10;

/// The uplink of one peer.
pub(super) struct Uplink {
    streams: VecDeque<Stream>,
    current: Option<Quantum>,
    /// Bytes of small messages that are sent before the next quantum.
    pub(super) small: u64,
    /// The moment at which the current quantum has been sent.
    pub(super) busy_until: Moment,
}

/// The data that a source sends for one request.
struct Stream {
    call: upload::UploadRequestId,
    to: No,
    request: download::DownloadRequestId,
    parts: VecDeque<Part>,
    /// The result of the stream, once it is known. It is reported when all data has been sent.
    end: Option<Result<(), download::Failure>>,
    /// The receiver takes no more before this moment.
    ready: Moment,
}

/// A piece, with the bytes of it that were handed to the transport and the bytes that were sent.
struct Part {
    piece: PieceIndex,
    length: u32,
    /// Bytes of the first chunk. The receiver learns about the piece when all of them have arrived.
    first: u32,
    handed: u32,
    out: u32,
}

/// A quantum that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantum {
    pub(super) call: upload::UploadRequestId,
    pub(super) to: No,
    pub(super) request: download::DownloadRequestId,
    pub(super) piece: PieceIndex,
    pub(super) bytes: u32,
    pub(super) first: bool,
    pub(super) last: bool,
}

/// What the transport asks of a stream.
pub(super) enum Wants {
    /// A chunk of this many bytes.
    Chunk(u32),
    /// The next piece, or the end of the stream.
    Next,
}

/// The leecher and its request to which the end of a stream is reported, and the result.
pub(super) type Ending = (No, download::DownloadRequestId, Result<(), download::Failure>);

impl Uplink {
    pub(super) fn new() -> Self {
        Self { streams: VecDeque::new(), current: None, small: 0, busy_until: Moment::ZERO }
    }

    /// Queues a piece for a request.
    pub(super) fn send(
        &mut self,
        call: upload::UploadRequestId,
        to: No,
        request: download::DownloadRequestId,
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

    /// Whether a piece was queued for the request and its stream has not ended.
    pub(super) fn is_open(&self, call: upload::UploadRequestId) -> bool {
        self.streams.iter().any(|stream| stream.call == call)
    }

    fn find(&mut self, call: upload::UploadRequestId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.call == call)
    }

    /// Hands over the next chunk, if the transport has room for it.
    pub(super) fn hand_over(
        &mut self,
        call: upload::UploadRequestId,
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

    /// Ends the stream when all data that was handed over has been sent. Returns its end if that is the case
    /// now.
    pub(super) fn end(
        &mut self,
        call: upload::UploadRequestId,
        end: Result<(), download::Failure>,
    ) -> Option<Ending> {
        self.find(call)?.end = Some(end);
        self.take_ended(call)
    }

    /// Removes the stream if it has ended and all its data has been sent.
    fn take_ended(&mut self, call: upload::UploadRequestId) -> Option<Ending> {
        let at = self.streams.iter().position(|stream| stream.call == call)?;
        let stream = &self.streams[at];
        let on_its_way = self.current.is_some_and(|quantum| quantum.call == call);
        let is_out = !on_its_way && stream.parts.iter().all(|part| part.out == part.handed);
        let ending = (stream.to, stream.request, stream.end?);
        is_out.then(|| self.streams.remove(at))?;
        Some(ending)
    }

    /// Drops a stream that its receiver cancelled. Up to `socket` bytes of it are sent all the same.
    pub(super) fn drop_stream(&mut self, call: upload::UploadRequestId, socket: u32) {
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

    /// Begins the next quantum, unless one is being sent. Otherwise returns the moment to try again, if it is
    /// known.
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

    /// Finishes the current quantum. Also returns the end of its stream, if this was the last quantum of it.
    pub(super) fn finish(&mut self) -> Option<(Quantum, Option<Ending>)> {
        let quantum = self.current.take()?;
        if let Some(stream) = self.find(quantum.call) {
            while stream.parts.len() > 1 && stream.parts[0].out == stream.parts[0].length {
                stream.parts.pop_front();
            }
        }
        Some((quantum, self.take_ended(quantum.call)))
    }

    /// Holds the stream until the given moment, because its receiver takes no more of it before.
    pub(super) fn hold(&mut self, call: upload::UploadRequestId, until: Moment) {
        if let Some(stream) = self.find(call) {
            stream.ready = until;
        }
    }
}
