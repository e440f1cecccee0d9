//! From the front to the back: for a file that is read while it comes.

use proto::domain::{Bitfield, PieceIndex};

use super::{Picker, Wanted, pieces_from};
use crate::domain::Rng;

/// The first open pieces of the file that the source has, in order.
#[derive(Clone, Copy, Debug)]
pub struct Sequential;

impl Picker for Sequential {
    fn pick(
        &self,
        wanted: &Wanted<'_>,
        source: &Bitfield,
        count: usize,
        _: &mut Rng,
        picks: &mut Vec<PieceIndex>,
    ) {
        let done = wanted.verified.as_bytes().iter().take_while(|byte| **byte == 0xff).count();
        let pieces = pieces_from(wanted.layout, source, done.min(source.as_bytes().len()));
        picks.extend(pieces.filter(|piece| wanted.availability.is_open(*piece)).take(count));
    }
}
