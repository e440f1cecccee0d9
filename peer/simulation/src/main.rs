//! The program that `cargo xtask simulate` runs: a swarm in virtual time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]
#![allow(missing_docs, reason = "a program, not a library")]

mod tables;

use std::time::Instant;

use clap::Parser;

use simulation::{COLUMNS, Outcome, Scenario, run};

/// Simulates a swarm in virtual time: the product's own state machines over a model of the network.
///
/// T is the time until every leecher has the file. T_min is the least time that is possible: the seeder sends
/// every byte once, and all peers together receive no faster than they send. T includes packet headers, T_min
/// does not.
#[derive(Parser)]
#[command(name = "cargo xtask simulate")]
struct Args {
    #[command(flatten)]
    scenario: Scenario,
    /// Simulate swarms of 8, 24, 100, 1,000 and 10,000 leechers instead of one; takes minutes
    #[arg(long, conflicts_with = "compare")]
    scaling: bool,
    /// Compare the product's policies with others, as medians over several seeds
    #[arg(long)]
    compare: bool,
    /// Number of seeds for each row of a table, counting from --seed
    #[arg(long, default_value_t = 5, value_name = "N")]
    seeds: u64,
}

fn main() {
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
    if scenario.readers > 0 {
        let Outcome { crowd_p95, first, seek, .. } = outcome;
        println!(
            "p95 of the others {crowd_p95:.3}; first piece after {first:.2} s, after a seek {seek:.2} s"
        );
    }
    if scenario.drain > 0.0 {
        println!("the seeder left after {:.3} of what nobody else had", outcome.drained);
    }
    eprintln!("{} events in {:.1?}", outcome.events, start.elapsed());
}
