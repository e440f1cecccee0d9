//! Small runs of the simulator of `cargo xtask simulate`. The tests check the simulator's promises, and that
//! the product's state machines keep their invariants in a swarm where peers come, go and send garbage.

use clap::Parser;

use simulation::{Outcome, Scenario, run};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    scenario: Scenario,
}

/// Parses a scenario from command-line flags.
fn scenario(flags: &str) -> Scenario {
    Args::parse_from(["simulate"].into_iter().chain(flags.split_whitespace())).scenario
}

fn simulate(flags: &str) -> Outcome {
    run(&scenario(flags))
}

#[test]
fn the_same_seed_has_the_same_outcome_and_another_has_another() {
    let flags = "--peers 12 --pieces 16 --churn 0.2 --liars 0.1";
    let one = simulate(&format!("{flags} --seed 7"));
    assert_eq!(one, simulate(&format!("{flags} --seed 7")));
    assert_ne!(one, simulate(&format!("{flags} --seed 8")));
}

#[test]
fn everybody_finishes_among_liars_and_leavers_and_the_machines_keep_their_invariants() {
    for seed in 1..=3 {
        let outcome =
            simulate(&format!("--peers 20 --pieces 12 --churn 0.3 --liars 0.2 --check --seed {seed}"));
        assert_eq!(outcome.unfinished, 0, "{outcome}");
        assert!(outcome.wasted > 0.0, "liars were believed nothing: {outcome}");
    }
}

#[test]
fn who_falls_silent_in_a_slot_does_not_hold_up_the_crowd() {
    // A source detects that a silent receiver is dead only after more than four times the least time.
    for seed in [1, 4] {
        let outcome = simulate(&format!("--peers 10 --pieces 32 --churn 0.3 --seed {seed}"));
        assert_eq!(outcome.unfinished, 0, "{outcome}");
        assert!(outcome.ratio < 2.0, "{outcome}");
    }
}

#[test]
fn a_small_crowd_is_near_the_least_time_and_asks_little_of_the_seeder() {
    let outcome = simulate("--peers 8");
    assert!((1.0..1.25).contains(&outcome.ratio), "{outcome}");
    assert!((1.0..1.2).contains(&outcome.copies), "{outcome}");
    assert!(outcome.twice < 1.0 && outcome.wasted < 1.5, "{outcome}");
    assert!(outcome.eta_off < 20.0, "{outcome}");
}

#[test]
fn a_seeder_that_drains_leaves_and_everybody_finishes() {
    for seed in 1..=2 {
        let outcome = simulate(&format!("--peers 12 --pieces 32 --drain 0.4 --seed {seed}"));
        assert_eq!(outcome.unfinished, 0, "{outcome}");
        // What it had begun to send when it wanted to leave was missing too.
        assert!((0.9..=1.05).contains(&outcome.drained), "{outcome:?}");
    }
}

#[test]
fn nobody_receives_faster_than_the_downlink() {
    // The downlink is below the uplink, so it limits the swarm.
    let outcome = simulate("--peers 4 --pieces 16 --downlink 10");
    assert_eq!(outcome.unfinished, 0, "{outcome}");
    assert!(outcome.p50 >= 2.0, "{outcome}");
}

#[test]
fn a_reader_gets_its_bytes_soon_and_the_crowd_loses_little() {
    for seed in 1..=3 {
        let without = simulate(&format!("--seed {seed}"));
        let with = simulate(&format!("--readers 1 --seed {seed}"));
        assert_eq!(with.unfinished, 0, "{with}");
        let factor = with.crowd_p95 / without.crowd_p95;
        assert!(factor <= 1.1, "the crowd takes {factor:.3} times as long");
        // All leechers come at once, and one seeder has everything. Its queue takes five seconds, which the reader
        // does not wait for.
        assert!(with.first <= 1.0 && with.seek <= 2.0, "{with:?}");
    }
}
