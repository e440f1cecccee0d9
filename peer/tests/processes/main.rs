//! Whole processes as people run them: the real `peer` binary, a real tracker process, real files; loopback only.

#![allow(clippy::expect_used, missing_docs)]

mod access;
mod callers;
mod daemon;
mod faults;
mod first_use;
mod lying_tracker;
mod operate;
mod places;
mod secrets;
mod story;
mod support;
mod swarm;
mod terminal;
mod verbs;

/// Not a test of its own: the process that the others start as their tracker is this very binary, told so by an
/// environment variable. It saves building a second program with the right features for every run.
#[test]
fn tracker_process() {
    support::tracker::become_one_if_told();
}
