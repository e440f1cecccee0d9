//! From the front to the back: for a file that is read while it comes.

use proto::domain::{Bitfield, PieceIndex};

use super::{Picker, Wanted, open_from};
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
        picks.extend(open_from(wanted, source, wanted.from).take(count));
    }
}
