//! What a daemon logs, and how often.

use crate::support::{Tracker, wait_for};

#[test]
fn a_tracker_that_is_away_is_told_once_and_so_is_its_return() {
    let mut tracker = Tracker::start();
    let ann = tracker.user_with("ann", &[("PEER_LOG", "info,peer::tracker=debug")]);
    let lines = |words: &str| ann.log().lines().filter(|line| line.contains(words)).count();
    wait_for("the peer announces", || (ann.json("status")["tracker_connected"] == true).then_some(()));
    tracker.kill();
    wait_for("some tries fail", || (lines("the announce stream ended") >= 3).then_some(()));
    assert_eq!(lines("the tracker is away"), 1, "{}", ann.log());
    tracker.start_again();
    wait_for("it is back", || (lines("the tracker is back") > 0).then_some(()));
    assert_eq!((lines("the tracker is away"), lines("the tracker is back")), (1, 1), "{}", ann.log());
}
