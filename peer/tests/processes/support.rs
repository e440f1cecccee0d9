//! A tracker and peers as processes, each with a directory of its own.

pub(crate) mod peer;
pub(crate) mod tracker;

use std::{
    fmt::Debug,
    path::Path,
    time::{Duration, Instant},
};

pub(crate) use peer::{Done, Foreground, PASSWORD, Peer};
pub(crate) use tracker::Tracker;

/// What a test waits for at most; far above what anything takes, so that only a hang ends it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Polls until `look` gives something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, &mut look)
}

/// Polls until `look` gives something, for a bounded time.
pub(crate) fn wait_within<T>(limit: Duration, what: &str, look: &mut impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        #[allow(clippy::disallowed_methods, reason = "it paces a poll, and nothing depends on its length")]
        // Between two looks at another process there is nothing to await.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A file of pseudo-random bytes; the same for the same seed.
pub(crate) fn make_file(path: &Path, bytes: usize, seed: u64) {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        // xorshift64 (Marsaglia 2003): enough to make no two pieces alike.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(bytes);
    std::fs::write(path, data).expect("the file is written");
}

/// The two files hold the same bytes.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let read =
        |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(read(a) == read(b), "{} and {} differ", a.display(), b.display());
}

/// Bytes of memory that a process holds now.
pub(crate) fn rss(pid: u64) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it lives");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// One MiB.
pub(crate) const MIB: usize = 1 << 20;

/// Asserts with the value in the message.
pub(crate) fn assert_in<T: PartialOrd + Debug + Copy>(
    value: T,
    range: std::ops::RangeInclusive<T>,
    what: &str,
) {
    assert!(range.contains(&value), "{what}: {value:?} is not in {range:?}");
}
