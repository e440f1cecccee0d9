//! A tracker and peers as processes, each with a directory of its own.

pub(crate) mod peer;
pub(crate) mod tracker;

use std::{fmt::Debug, path::Path};

use testkit::content::noise;
pub(crate) use testkit::{
    process::rss,
    wait::{wait_for, wait_within},
};

pub(crate) use peer::{Done, Foreground, PASSWORD, Peer};
pub(crate) use tracker::Tracker;

/// Writes a file of pseudo-random bytes, the same for the same seed.
pub(crate) fn make_file(path: &Path, bytes: usize, seed: u64) {
    std::fs::write(path, noise(seed, bytes)).expect("the file is written");
}

/// Asserts that the two files hold the same bytes.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let read =
        |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(read(a) == read(b), "{} and {} differ", a.display(), b.display());
}

/// One MiB.
pub(crate) const MIB: usize = 1 << 20;

/// Asserts that the value is in the range. The message contains the value.
pub(crate) fn assert_in<T: PartialOrd + Debug + Copy>(
    value: T,
    range: std::ops::RangeInclusive<T>,
    what: &str,
) {
    assert!(range.contains(&value), "{what}: {value:?} is not in {range:?}");
}
