//! `WatchAvailability`: sends a bitfield, then the changes. For a slow reader changes are merged, so no queue
//! grows.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use proto::{convert, domain::PieceIndex, pb::WatchAvailabilityResponse, reason::Reason};
use tokio::{sync::watch, time::interval};
use tonic::Status;

use super::{
    admission::{Admission, Admitted, refusal},
    grpc,
    guard::CHECK_EVERY,
    have::{Changes, Follower},
};

/// The most pieces of each kind in one message. Keeps it under 512 KiB.
const MESSAGE: usize = 32_768;

/// One watcher.
struct Watch {
    admission: Arc<Admission>,
    who: Admitted,
    follower: Follower,
    offer: watch::Receiver<Option<Reason>>,
    trust: watch::Receiver<()>,
    /// The changes that did not fit into the last message.
    rest: Changes,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    First,
    Changes,
    Over,
}

/// Answers a caller that was admitted.
pub(crate) fn watch(admission: Arc<Admission>, who: Admitted) -> impl Stream<Item = Frame<Bytes>> + Send {
    let watch = Watch {
        trust: admission.watch(),
        offer: who.share.watch_offer(),
        follower: who.share.have.follow(),
        admission,
        who,
        rest: Changes::default(),
        stage: Stage::First,
    };
    futures_util::stream::unfold(watch, Watch::step)
}

impl Watch {
    async fn step(mut self) -> Option<(Frame<Bytes>, Self)> {
        let frame = match self.stage {
            Stage::Over => return None,
            Stage::First => {
                self.stage = Stage::Changes;
                let bitfield = Some(convert::to_bitfield(self.follower.told()));
                grpc::message(&WatchAvailabilityResponse { bitfield, ..Default::default() })
            }
            Stage::Changes => match self.changes().await {
                Ok(changes) => {
                    let indices =
                        |pieces: Vec<PieceIndex>| pieces.iter().map(|piece| piece.get().into()).collect();
                    grpc::message(&WatchAvailabilityResponse {
                        bitfield: None,
                        gained: indices(changes.gained),
                        lost: indices(changes.lost),
                    })
                }
                Err(status) => {
                    self.stage = Stage::Over;
                    grpc::end(Err(status))
                }
            },
        };
        Some((frame, self))
    }

    async fn changes(&mut self) -> Result<Changes, Status> {
        let mut clock = interval(CHECK_EVERY);
        loop {
            self.admission.in_force(&self.who.claims).map_err(refusal)?;
            if let Some(reason) = *self.offer.borrow_and_update() {
                return Err(refusal(reason));
            }
            if self.rest.is_empty() {
                self.rest = self.follower.take(&self.who.share.have);
            }
            let changes = self.rest.split_off(MESSAGE);
            if !changes.is_empty() {
                return Ok(changes);
            }
            tokio::select! {
                there = self.follower.changed() => if !there {
                    return Err(refusal(Reason::NotShared));
                },
                _ = self.offer.changed() => {}
                _ = self.trust.changed() => {}
                _ = clock.tick() => {}
            }
        }
    }
}
