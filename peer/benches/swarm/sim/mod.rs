//! A swarm in virtual time. The machines of [`peer::domain`] and [`tracker_svc::domain`] decide, as they do in the
//! product; what is around them there (sockets, disks, streams) is replaced by a model of the network.
//!
//! The model: every peer has an uplink, which the streams that run share evenly and which its small messages use too,
//! and, if wanted, a downlink. A message takes the time between two peers; a connection takes two round trips more. A
//! chunk is handed over when the transport has room for it. Hashing and writing take no time. Not in the model: lost
//! packets, and how a connection's rate grows at its start.
//!
//! All that is left to chance follows from the seed: the same scenario has the same outcome, everywhere.

mod churn;
mod clock;
mod host;
mod leech;
mod outcome;
mod scenario;
mod serve;
mod tracker;
mod uplink;
mod world;

pub(crate) use self::{
    outcome::{COLUMNS, Outcome},
    scenario::{Choice, Order, Scenario},
    world::World,
};

/// A peer's number.
type No = u32;

/// Plays the scenario to its end.
pub(crate) fn run(scenario: &Scenario) -> Outcome {
    let mut world = World::new(scenario.clone());
    while world.step() {}
    world.outcome()
}
