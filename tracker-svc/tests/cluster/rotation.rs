//! The ticket keys of several trackers change while all of them are up.

use std::sync::Arc;

use tracker_svc::{
    keys::TicketKeys,
    store::postgres::{Postgres, PostgresOptions},
    vault::Vault,
};

use super::*;

/// Seconds since 1970.
const START: u64 = 1_800_000_000;
const MONTH: u64 = 30 * 24 * 3_600;
const LIFE: u64 = 1_800;
/// How much the second tracker's clock is behind, in seconds: as much as clocks may differ.
const BEHIND: u64 = 600;
/// How often a tracker looks after its keys, in seconds.
const TEND: u64 = 60;

/// The keys as one of the trackers has them.
async fn keys(cluster: &Cluster, now: u64) -> TicketKeys {
    let options = PostgresOptions::new(&cluster.postgres.url(), None).expect("an address");
    let store = Arc::new(Postgres::open(&options).await.expect("a database"));
    let vault = Vault::open(store, Some(cluster.key.path())).expect("a vault");
    TicketKeys::open_shared(vault, Duration::from_secs(LIFE), now).await.expect("keys")
}

fn ids(keys: &TicketKeys) -> Vec<String> {
    keys.verifying_keys().borrow().iter().map(|key| key.id.clone()).collect()
}

fn signs(keys: &TicketKeys, now: u64) -> String {
    keys.signer(now).verifying_key().id.clone()
}

#[tokio::test]
async fn ticket_keys_rotate_while_all_trackers_are_up_and_each_knows_what_the_other_signs_with() {
    let cluster = Cluster::new();
    let (one, two) = tokio::join!(keys(&cluster, START), keys(&cluster, START - BEHIND));
    let first = ids(&one);
    assert_eq!((first.len(), &first), (1, &ids(&two)), "made once");
    let (mut made, mut turned) = (None, None);
    for now in (START + MONTH - 2 * TEND..START + MONTH + 3 * 3_600).step_by(TEND as usize) {
        // What peers of each were told in the minute before.
        let known = [ids(&one), ids(&two)];
        let (a, b) = tokio::join!(one.tend(now), two.tend(now - BEHIND));
        a.and(b).expect("tended");
        let signing = [signs(&one, now), signs(&two, now - BEHIND)];
        for key in &signing {
            assert!(known.iter().all(|known| known.contains(key)), "at {now}: {key} is not in {known:?}");
        }
        if ids(&one).len() > 1 {
            made = made.or(Some(now));
        }
        if signing.iter().all(|key| *key != first[0]) {
            turned = turned.or(Some(now));
        }
    }
    let (made, turned) = (made.expect("a new key"), turned.expect("both sign with it"));
    println!("a new key was made {} s before all signed with it", turned - made);
    // A ticket of the old key lives no longer than the key is known.
    let (one, two) = (ids(&one), ids(&two));
    assert_eq!(one, two);
    assert_eq!(one.len(), 1, "the old key is gone");
    assert_ne!(one, first);
}
