//! Tests of whole processes: the real `peer` binary, a real tracker process, real files; loopback only.

#![allow(clippy::expect_used, missing_docs)]

mod access;
mod browser;
mod callers;
mod chromium;
mod cluster;
mod completion;
mod daemon;
mod drives;
mod explain;
mod faults;
mod first_use;
mod folders;
mod found;
mod hooks;
mod invites;
mod kills;
mod last_copy;
mod leaving;
mod logs;
mod loops;
mod lying_tracker;
mod manners;
mod operate;
mod outcomes;
mod page;
mod parts;
mod places;
mod planted;
mod quotas;
mod reach;
mod reading;
mod repair;
mod revocation;
mod roles;
mod scenario;
mod secrets;
mod several;
mod several_trackers;
mod silence;
mod subscriptions;
mod support;
mod swarm;
mod terminal;
mod tokens;
mod updates;
mod verbs;
mod versions;
mod watch;

/// Not a test of its own. The tests start this binary as their tracker, and an environment variable tells it
/// to be one. This saves building a second program with the right features for every run.
#[test]
fn tracker_process() {
    support::tracker::become_one_if_told();
}
