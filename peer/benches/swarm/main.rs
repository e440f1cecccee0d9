//! A swarm in virtual time: what `cargo xtask simulate` runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]
#![allow(missing_docs, reason = "a program, not a library")]

mod sim;
mod tables;

use std::time::Instant;

use clap::Parser;

use sim::{COLUMNS, Scenario, run};

/// Plays a swarm in virtual time: the product's own machines over a model of the network.
///
/// T is the time until everybody has the file; T_min what nobody can beat: every byte leaves the seeder once, and all
/// together receive no faster than all of them send. Packet headers are not in T_min, and are in T.
#[derive(Parser)]
#[command(name = "cargo xtask simulate")]
struct Args {
    #[command(flatten)]
    scenario: Scenario,
    /// Swarms of 8, 24, 100, 1,000 and 10,000 leechers instead of one; takes minutes
    #[arg(long, conflicts_with = "compare")]
    scaling: bool,
    /// The product's policies beside others, as medians of seeds
    #[arg(long)]
    compare: bool,
    /// Seeds of each row of a table, from --seed on
    #[arg(long, default_value_t = 5, value_name = "N")]
    seeds: u64,
}

fn main() {
    // `cargo bench` says so itself, and passes over it.
    if std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let Args { scenario, scaling, compare, seeds } = Args::parse();
    if scaling {
        return tables::scaling(&scenario, seeds);
    }
    if compare {
        return tables::compare(&scenario, seeds);
    }
    let start = Instant::now();
    let outcome = run(&scenario);
    println!("| {COLUMNS} |\n|{} \n| {outcome} |", "---|".repeat(COLUMNS.split('|').count()));
    eprintln!("{} events in {:.1?}", outcome.events, start.elapsed());
}
