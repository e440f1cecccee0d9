//! `GetChunk`: pieces out of the page cache into frames, at the pace of who reads them.
//!
//! Nothing runs ahead of the reader: the transport asks for the next frame when it has room for it, and only then a
//! chunk is read. So a reader that stalls costs what the transport buffers, and dropping the stream frees the slot.

use std::{io, sync::Arc};

use bytes::{BufMut, Bytes};
use futures_util::Stream;
use http_body::Frame;
use proto::{
    convert,
    domain::{PIECE_LENGTH, PieceIndex},
    pb::{GetChunkRequest, GetChunkResponse},
    reason::Reason,
};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

use super::{
    admission::{Admission, Admitted, refusal},
    buffers::Buffers,
    grpc,
    slots::{Ask, Command, Slots, Turn},
};
use crate::{
    domain::upload::{End, MAX_CHUNK, chunk_length},
    engine::Totals,
    limiter::Limiter,
    storage::PieceReader,
};

/// Most bytes in front of a chunk's data: the prefix, two numbers and the data's tag and length.
const HEAD: usize = grpc::PREFIX + 2 * 11 + 6;
/// When to ask again for a slot if the queue is full.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// What all uploads share.
pub(crate) struct Uploads {
    pub(crate) admission: Arc<Admission>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) totals: Arc<Totals>,
    buffers: Arc<Buffers>,
}

impl Uploads {
    pub(crate) fn new(
        admission: Arc<Admission>,
        slots: Arc<Slots>,
        limiter: Arc<Limiter>,
        totals: Arc<Totals>,
    ) -> Self {
        Self { admission, slots, limiter, totals, buffers: Buffers::new(HEAD + MAX_CHUNK as usize) }
    }
}

/// One request's stream.
struct Upload {
    uploads: Arc<Uploads>,
    who: Admitted,
    /// `None` once the last frame is out.
    turn: Option<Turn>,
    offer: watch::Receiver<Option<Reason>>,
    command: Option<Command>,
    sending: Option<Sending>,
}

/// A piece on its way out.
struct Sending {
    piece: PieceIndex,
    sent: u32,
    length: u32,
    reader: Arc<dyn PieceReader>,
}

/// Answers a request that was let in.
pub(crate) fn get_chunk(
    uploads: Arc<Uploads>,
    who: Admitted,
    request: &GetChunkRequest,
) -> Result<impl Stream<Item = Frame<Bytes>> + Send + use<>, Status> {
    let mut wanted = convert::piece_set(who.share.manifest.layout(), &request.pieces)?;
    wanted.retain(|piece| who.share.have.contains(*piece));
    if wanted.is_empty() {
        return Err(Reason::NotShared.status("this peer holds none of these pieces"));
    }
    let ask = Ask { wanted, max_pieces: request.max_pieces, in_order: request.in_order };
    let mut turn = uploads.slots.ask(&who, ask);
    let first = turn.first();
    if first == Command::End(End::QueueFull) {
        return Err(Reason::Busy.status_retry("the upload queue is full", BUSY_RETRY));
    }
    let offer = who.share.watch_offer();
    // Behind the peer's own earlier requests it has no place in the queue; a place would say that others are waiting.
    let command = (first != Command::Wait(0)).then_some(first);
    let upload = Upload { uploads, who, turn: Some(turn), offer, command, sending: None };
    Ok(futures_util::stream::unfold(upload, Upload::step))
}

impl Upload {
    async fn step(mut self) -> Option<(Frame<Bytes>, Self)> {
        let frame = match self.next_frame().await {
            Some(Ok(frame)) => frame,
            None if self.turn.is_none() => return None,
            end => {
                // The slot is free from here on, whenever the end is read.
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

    /// The next command; a withdrawn offer makes one, too.
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

    /// Makes sure that the piece may go out: what held when the stream began need not hold any more.
    fn begin(&self, piece: PieceIndex) -> Result<Sending, Status> {
        let share = &self.who.share;
        self.uploads.admission.in_force(&self.who.claims).map_err(refusal)?;
        let reader = share.reader();
        if !reader.is_unchanged() {
            share.changed_on_disk();
            return Err(refusal(Reason::FileChanged));
        }
        if !share.have.contains(piece) {
            return Err(refusal(Reason::NotShared));
        }
        Ok(Sending { piece, sent: 0, length: share.manifest.layout().piece_length(piece), reader })
    }

    async fn send_chunk(&mut self, mut sending: Sending) -> Result<Frame<Bytes>, Status> {
        if let Some(turn) = &self.turn {
            turn.wants();
        }
        let (limit, pace) = (self.uploads.limiter.rate(), self.uploads.slots.pace());
        let length = chunk_length(sending.sent, if limit == 0 { pace } else { pace.min(limit) });
        let length = length.min(sending.length - sending.sent) as usize;
        tokio::select! {
            () = self.uploads.limiter.pass(length) => {}
            Ok(reason) = withdrawn(&mut self.offer) => return Err(refusal(reason)),
        }
        let chunk = match read_chunk(&self.uploads.buffers, &sending, length).await {
            Ok(chunk) => chunk,
            Err(error) => {
                let share = &self.who.share;
                // Cut short under us: it is the file that is another, not the piece that is bad.
                if !sending.reader.is_unchanged() {
                    share.changed_on_disk();
                    return Err(refusal(Reason::FileChanged));
                }
                tracing::warn!(%error, path = %share.path.display(), piece = sending.piece.get(), "a piece can't be read");
                share.lost(sending.piece);
                return Err(refusal(Reason::Corrupt));
            }
        };
        // Fits: no more than a piece.
        sending.sent += length as u32;
        self.who.share.add_uploaded(length as u64);
        self.uploads.totals.uploaded(length as u64);
        if let Some(turn) = &self.turn {
            turn.progress(length as u32);
        }
        self.sending = Some(sending);
        Ok(Frame::data(chunk))
    }
}

/// Waits until the file is offered no more.
async fn withdrawn(offer: &mut watch::Receiver<Option<Reason>>) -> Result<Reason, watch::error::RecvError> {
    let reason = *offer.wait_for(Option::is_some).await?;
    Ok(reason.unwrap_or(Reason::NotShared))
}

fn finished(ended: Command) -> Option<Result<Frame<Bytes>, Status>> {
    match ended {
        Command::End(End::Done) => None,
        Command::End(End::Replaced) => Some(Err(Reason::Replaced.status("a newer request took its place"))),
        Command::End(End::QueueFull) => {
            Some(Err(Reason::Busy.status_retry("the upload queue is full", BUSY_RETRY)))
        }
        Command::End(End::Stalled) => Some(Err(refusal(Reason::TooSlow))),
        Command::Cut(reason) => Some(Err(refusal(reason))),
        Command::Wait(_) | Command::Send(_) => Some(Err(refusal(Reason::Internal))),
    }
}

/// One framed message with the next `length` bytes of the piece.
async fn read_chunk(buffers: &Arc<Buffers>, sending: &Sending, length: usize) -> io::Result<Bytes> {
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
    // Waiting for the disk would hold up every other task of this thread.
    let reader = sending.reader.clone();
    let read =
        tokio::task::spawn_blocking(move || reader.read(offset, &mut buffer[data..end]).map(|()| buffer));
    Ok(buffers.lend(read.await.map_err(io::Error::other)??, end))
}

/// What goes before the data: the prefix, and the message up to it. Fields that are zero are left out, as always.
fn put_head(sending: &Sending, length: usize, into: &mut impl BufMut) {
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
