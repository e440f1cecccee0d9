//! Tables that show several scenarios side by side.

use std::time::Instant;

use simulation::{COLUMNS, Choice, Order, Outcome, Scenario, run};

/// Numbers of leechers in the table of growing swarms.
const SIZES: [u32; 5] = [8, 24, 100, 1_000, 10_000];
/// From this number of leechers on, one seed is enough: random differences even out.
const MANY: u32 = 1_000;

/// Prints how the time grows with the swarm.
pub(crate) fn scaling(scenario: &Scenario, seeds: u64) {
    head("leechers");
    for peers in SIZES {
        let seeds = if peers < MANY { seeds } else { 1 };
        row(&peers.to_string(), &Scenario { peers, ..scenario.clone() }, seeds);
    }
}

/// Prints one row for each policy.
pub(crate) fn compare(scenario: &Scenario, seeds: u64) {
    head("policy");
    row("the product's own", scenario, seeds);
    for (name, picker) in [("picked at random", Choice::Random), ("picked in order", Choice::Sequential)] {
        row(name, &Scenario { picker, ..scenario.clone() }, seeds);
    }
    row("sent in the order asked", &Scenario { order: Order::Asked, ..scenario.clone() }, seeds);
    for slots in [1, 2, 4, 8] {
        row(&format!("{slots} upload slots"), &Scenario { slots: Some(slots), ..scenario.clone() }, seeds);
    }
}

fn head(first: &str) {
    println!("| {first} | {COLUMNS} |");
    println!("|{}", "---|".repeat(1 + COLUMNS.split('|').count()));
}

fn row(name: &str, scenario: &Scenario, seeds: u64) {
    let start = Instant::now();
    let outcomes = (0..seeds).map(|more| run(&Scenario { seed: scenario.seed + more, ..scenario.clone() }));
    let median = Outcome::median(outcomes.collect());
    println!("| {name} | {median} |");
    eprintln!("  {} events a run; {:.1?}", median.events, start.elapsed());
}
