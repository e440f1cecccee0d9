//! Simulates a swarm in virtual time. The state machines of [`peer_core`] and [`tracker_core`] make the
//! decisions, as in the product. A model of the network replaces the sockets, disks and streams around them.
//!
//! The model: every peer has an uplink. Its running streams share it evenly, and its small messages use it
//! too. A peer may also have a limited downlink. A message takes the latency between the two peers. A
//! connection takes two round trips more. A chunk is handed over when the transport has room for it. Hashing
//! and writing take no time. The model leaves out lost packets and the slow start of connections.
//!
//! Every random choice follows from the seed: the same scenario has the same outcome on every machine.

mod announce;
mod churn;
mod clock;
mod drain;
mod host;
mod leech;
mod measure;
mod outcome;
mod reading;
mod scenario;
mod serve;
mod tracker;
mod uplink;
mod world;

pub use self::{
    outcome::{COLUMNS, Outcome},
    scenario::{Choice, Order, Scenario},
};

use world::World;

/// The index of a peer.
type No = u32;

/// Runs the scenario to its end.
pub fn run(scenario: &Scenario) -> Outcome {
    let mut world = World::new(scenario.clone());
    while world.step() {}
    world.outcome()
}
