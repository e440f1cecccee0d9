//! `GetChunk`: reads pieces from the page cache into frames, at the pace of the reader.
//!
//! Nothing is read ahead. The transport asks for the next frame when it has room for it, and a chunk is read
//! only then. A stalled reader therefore costs only what the transport buffers, and dropping the stream frees
//! the slot.

use std::{collections::HashMap, io, sync::Arc};

use bytes::{BufMut, Bytes};
use futures_util::Stream;
use http_body::Frame;
use parking_lot::Mutex;
use proto::{
    convert,
    domain::{PIECE_LENGTH, PeerId, PieceIndex, limits::MAX_PEER_CONNECTIONS},
    pb::{GetChunkRequest, GetChunkResponse},
    reason::Reason,
};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::Status;

use super::{
    admission::{Admission, Admitted, refusal},
    buffers::Buffers,
    grpc,
    receivers::Receivers,
    slots::{Command, PieceRequest, Turn, UploadSlots},
};
use crate::{
    domain::upload::{End, MAX_CHUNK, ReaderPace, chunk_length},
    limiter::Limiter,
    storage::PieceReader,
    totals::Totals,
};

/// The most bytes before a chunk's data: the prefix, two numbers, and the data's tag and length.
const HEAD: usize = grpc::PREFIX + 2 * 11 + 6;
/// The most readers whose pace is remembered.
const MAX_PACES: usize = 2 * MAX_PEER_CONNECTIONS;
/// When a caller should ask again if the queue is full.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// The parts that all uploads share.
pub(crate) struct Uploads {
    pub(crate) admission: Arc<Admission>,
    pub(crate) slots: Arc<UploadSlots>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) receivers: Receivers,
    buffers: Arc<Buffers>,
    /// What each reader took last. A reader's next request goes on from there.
    paces: Mutex<HashMap<PeerId, ReaderPace>>,
}

impl Uploads {
    pub(crate) fn new(
        admission: Arc<Admission>,
        slots: Arc<UploadSlots>,
        limiter: Arc<Limiter>,
        totals: Arc<Totals>,
    ) -> Self {
        let buffers = Buffers::new(HEAD + MAX_CHUNK as usize);
        let receivers = Receivers::default();
        Self { admission, slots, limiter, totals, receivers, buffers, paces: Mutex::default() }
    }

    fn pace_of(&self, peer: PeerId) -> ReaderPace {
        self.paces.lock().get(&peer).copied().unwrap_or_default()
    }

    fn note_pace(&self, peer: PeerId, pace: ReaderPace) {
        let mut paces = self.paces.lock();
        if paces.len() >= MAX_PACES && !paces.contains_key(&peer) {
            // They are learned again in a few chunks.
            paces.clear();
        }
        paces.insert(peer, pace);
    }
}

/// The stream of one request.
struct ChunkStream {
    uploads: Arc<Uploads>,
    who: Admitted,
    /// `None` after the last frame.
    turn: Option<Turn>,
    offer: watch::Receiver<Option<Reason>>,
    command: Option<Command>,
    sending: Option<OpenPiece>,
    reader: ReaderPace,
    /// When the last chunk was handed to the transport.
    handed: Option<Instant>,
    /// The last byte of a piece, which has a frame of its own.
    last_byte: Bytes,
}

/// A piece that is being sent.
struct OpenPiece {
    piece: PieceIndex,
    sent: u32,
    length: u32,
    reader: Arc<dyn PieceReader>,
}

/// Answers a request that was admitted.
pub(crate) fn get_chunk(
    uploads: Arc<Uploads>,
    who: Admitted,
    request: &GetChunkRequest,
) -> Result<impl Stream<Item = Frame<Bytes>> + Send + use<>, Status> {
    let mut wanted = convert::piece_set(who.share.manifest.layout(), &request.pieces)?;
    wanted.retain(|piece| who.share.have.contains(*piece));
    if wanted.is_empty() {
        return Err(Reason::NotShared.status("this peer has none of these pieces"));
    }
    let ask = PieceRequest {
        wanted,
        max_pieces: request.max_pieces,
        in_order: request.in_order,
        urgent: request.urgent,
    };
    let mut turn = uploads.slots.ask(&who, ask);
    let first = turn.first();
    if first == Command::End(End::QueueFull) {
        return Err(Reason::Busy.status_retry("the upload queue is full", BUSY_RETRY));
    }
    let offer = who.share.watch_offer();
    // `Wait(0)` means that the request waits only for the peer's own earlier requests. It has no place in the
    // queue, because a place would mean that others are waiting too.
    let command = (first != Command::Wait(0)).then_some(first);
    let upload = ChunkStream {
        reader: uploads.pace_of(who.claims.peer),
        uploads,
        who,
        turn: Some(turn),
        offer,
        command,
        sending: None,
        handed: None,
        last_byte: Bytes::new(),
    };
    Ok(futures_util::stream::unfold(upload, ChunkStream::step))
}

impl ChunkStream {
    async fn step(mut self) -> Option<(Frame<Bytes>, Self)> {
        // The transport asks for more when the reader has room again. What comes before the next chunk, such as
        // the wait for a turn, is not the reader's time.
        if let Some(handed) = self.handed.take() {
            self.reader.took(handed.elapsed());
            self.uploads.note_pace(self.who.claims.peer, self.reader);
        }
        let frame = match self.next_frame().await {
            Some(Ok(frame)) => frame,
            None if self.turn.is_none() => return None,
            end => {
                // The slot is free from here on, no matter when the reader takes the end of the stream.
                self.turn = None;
                self.sending = None;
                grpc::end(end.map_or(Ok(()), |result| result.map(drop)))
            }
        };
        Some((frame, self))
    }

    /// The next frame with a message; `None` at the end.
    async fn next_frame(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        loop {
            if let Some(ended) = self.turn.as_ref()?.ended() {
                return finished(ended);
            }
            if let Some(reason) = *self.offer.borrow_and_update() {
                return Some(Err(refusal(reason)));
            }
            if !self.last_byte.is_empty() {
                return Some(Ok(Frame::data(std::mem::take(&mut self.last_byte))));
            }
            match self.sending.take() {
                Some(sending) if sending.sent < sending.length => {
                    return Some(self.send_chunk(sending).await);
                }
                Some(_) => self.turn.as_ref()?.sent(),
                None => match self.next_command().await? {
                    Command::Send(piece) => match self.begin(piece) {
                        Ok(sending) => self.sending = Some(sending),
                        Err(status) => return Some(Err(status)),
                    },
                    Command::Wait(place) => {
                        let waiting = GetChunkResponse { queue_place: place.max(1), ..Default::default() };
                        return Some(Ok(grpc::message(&waiting)));
                    }
                    ended => return finished(ended),
                },
            }
        }
    }

    /// Waits for the next command. A withdrawn offer ends the request, too.
    async fn next_command(&mut self) -> Option<Command> {
        if let Some(command) = self.command.take() {
            return Some(command);
        }
        let turn = self.turn.as_mut()?;
        tokio::select! {
            command = turn.next() => Some(command),
            Ok(reason) = withdrawn(&mut self.offer) => Some(Command::Cut(reason)),
        }
    }

    /// Checks that the piece may be sent: what was true when the stream began may have changed.
    fn begin(&self, piece: PieceIndex) -> Result<OpenPiece, Status> {
        let share = &self.who.share;
        self.uploads.admission.in_force(&self.who.claims).map_err(refusal)?;
        let mut reader = share.reader();
        let bytes = share.manifest.layout().range(piece);
        if !reader.is_unchanged(bytes.clone()) {
            share.found_changed(piece);
            return Err(refusal(Reason::FileChanged));
        }
        match reader.opened() {
            Ok(Some(open)) => reader = open,
            Ok(None) => {}
            // Too many files are open, for example.
            Err(error) if reader.is_unchanged(bytes) => {
                tracing::warn!(%error, path = %share.path.display(), "a shared file can't be opened now");
                return Err(Reason::Busy.status_retry("the file can't be opened now", BUSY_RETRY));
            }
            Err(_) => {
                share.found_changed(piece);
                return Err(refusal(Reason::FileChanged));
            }
        }
        if !share.have.contains(piece) {
            return Err(refusal(Reason::NotShared));
        }
        Ok(OpenPiece { piece, sent: 0, length: share.manifest.layout().piece_length(piece), reader })
    }

    async fn send_chunk(&mut self, mut sending: OpenPiece) -> Result<Frame<Bytes>, Status> {
        if let Some(turn) = &self.turn {
            turn.wants();
        }
        let (limit, pace) = (self.uploads.limiter.rate(), self.uploads.slots.pace());
        let length = chunk_length(sending.sent, if limit == 0 { pace } else { pace.min(limit) });
        let length = length.min(self.reader.most()).min(sending.length - sending.sent) as usize;
        tokio::select! {
            () = self.uploads.limiter.pass(length) => {}
            Ok(reason) = withdrawn(&mut self.offer) => return Err(refusal(reason)),
        }
        let mut chunk = match read_chunk(&self.uploads.buffers, &sending, length).await {
            Ok(chunk) => chunk,
            Err(error) => {
                let share = &self.who.share;
                // If the file was cut short meanwhile, the whole file has changed. The piece is not bad.
                if !sending.reader.is_unchanged(share.manifest.layout().range(sending.piece)) {
                    share.found_changed(sending.piece);
                    return Err(refusal(Reason::FileChanged));
                }
                tracing::warn!(%error, path = %share.path.display(), piece = sending.piece.get(), "a piece can't be read");
                share.lost(sending.piece);
                return Err(refusal(Reason::Corrupt));
            }
        };
        // Fits: at most the length of a piece.
        sending.sent += length as u32;
        self.who.share.add_uploaded(length as u64);
        self.uploads.totals.uploaded(length as u64);
        self.uploads.receivers.note(&self.who.claims, length as u32);
        if let Some(turn) = &self.turn {
            turn.progress(length as u32);
        }
        // HTTP/2 takes a frame of any length as soon as there is room for one byte, and takes the end at once. A
        // call whose data is all taken has ended, so nothing could discard that data.
        if sending.sent == sending.length {
            self.last_byte = chunk.split_off(chunk.len() - 1);
        }
        self.sending = Some(sending);
        self.handed = Some(Instant::now());
        Ok(Frame::data(chunk))
    }
}

/// Waits until the file is no longer offered.
async fn withdrawn(offer: &mut watch::Receiver<Option<Reason>>) -> Result<Reason, watch::error::RecvError> {
    let reason = *offer.wait_for(Option::is_some).await?;
    Ok(reason.unwrap_or(Reason::NotShared))
}

fn finished(ended: Command) -> Option<Result<Frame<Bytes>, Status>> {
    match ended {
        Command::End(End::Done) => None,
        Command::End(End::Replaced) => {
            Some(Err(Reason::Replaced.status("a newer request replaced this one")))
        }
        Command::End(End::QueueFull) => {
            Some(Err(Reason::Busy.status_retry("the upload queue is full", BUSY_RETRY)))
        }
        Command::End(End::Stalled) => Some(Err(refusal(Reason::TooSlow))),
        Command::Cut(reason) => Some(Err(refusal(reason))),
        Command::Wait(_) | Command::Send(_) => Some(Err(refusal(Reason::Internal))),
    }
}

/// One framed message with the next `length` bytes of the piece.
async fn read_chunk(buffers: &Arc<Buffers>, sending: &OpenPiece, length: usize) -> io::Result<Bytes> {
    let mut buffer = buffers.take();
    let room = buffer.len();
    let mut rest = &mut buffer[..];
    put_head(sending, length, &mut rest);
    let data = room - rest.len();
    let end = data + length;
    let offset = u64::from(sending.piece.get()) * u64::from(PIECE_LENGTH) + u64::from(sending.sent);
    if sending.reader.is_cached(offset, length) {
        sending.reader.read(offset, &mut buffer[data..end])?;
        return Ok(buffers.lend(buffer, end));
    }
    // Waiting for the disk here would block every other task of this thread.
    let reader = sending.reader.clone();
    let read =
        tokio::task::spawn_blocking(move || reader.read(offset, &mut buffer[data..end]).map(|()| buffer));
    Ok(buffers.lend(read.await.map_err(io::Error::other)??, end))
}

/// Writes everything before the data: the prefix, and the message up to the data. Fields that are zero are
/// left out, as protobuf requires.
fn put_head(sending: &OpenPiece, length: usize, into: &mut impl BufMut) {
    use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
    let numbers = [(1, u64::from(sending.piece.get())), (2, u64::from(sending.sent))];
    let numbers = numbers.into_iter().filter(|(_, number)| *number != 0);
    let of_numbers: usize =
        numbers.clone().map(|(tag, number)| key_len(tag) + encoded_len_varint(number)).sum();
    let of_data = key_len(3) + encoded_len_varint(length as u64) + length;
    grpc::put_prefix(of_numbers + of_data, into);
    for (tag, number) in numbers {
        encode_key(tag, WireType::Varint, into);
        encode_varint(number, into);
    }
    encode_key(3, WireType::LengthDelimited, into);
    encode_varint(length as u64, into);
}
