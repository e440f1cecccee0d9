//! Decides whether others would lose something when this peer stops serving a file.

/// The others that announce a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Others {
    /// Those that have all of it.
    pub copies: usize,
    /// Those that are still fetching it.
    pub fetching: usize,
}

/// The others, by the number of pieces of each, of a file with `total` pieces.
pub fn others(pieces: impl IntoIterator<Item = u64>, total: u64) -> Others {
    let (copies, fetching): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|pieces| *pieces >= total);
    Others { copies: copies.len(), fetching: fetching.len() }
}

/// Whether those who fetch the file would have fewer than `least` complete copies without this peer, which has `own`
/// pieces of it. Nobody knows which pieces the others have, so parts of it do not count as copies.
pub fn is_at_risk(own: u64, others: Others, least: usize) -> bool {
    own > 0 && others.fetching > 0 && others.copies < least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_fetch_from_this_peer_alone_is_at_risk() {
        for (own, pieces, least, expected) in [
            (10, &[][..], 1, false),
            (10, &[3], 1, true),
            (4, &[3], 1, true),
            (0, &[3], 1, false),
            (10, &[3, 10], 1, false),
            (10, &[3, 10], 2, true),
            (10, &[10], 2, false),
            (10, &[3, 10, 10], 2, false),
        ] {
            let others = others(pieces.iter().copied(), 10);
            assert_eq!(is_at_risk(own, others, least), expected, "{own} {pieces:?} {least}");
        }
    }
}
