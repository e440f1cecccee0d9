//! What may be listed.

use super::*;

/// Every file of these tests has 600,000 bytes.
pub(super) async fn no_more_is_listed_than_the_operator_allows(world: World) {
    let (ann, bob) = (world.account("ann").await, world.account("bob").await);
    let (g1, g2) = (group("g1"), group("g2"));
    world.create(&ann, &g1).await;
    world.create(&ann, &g2).await;
    world.join(&bob, &g1, &ann).await;
    let (anns, bobs) = (world.member(&ann, &g1).await, world.member(&bob, &g1).await);
    let quotas = ListingQuotas {
        group: Allowance { bytes: Some(4 * 600_000 + 1), files: None },
        user: Allowance { bytes: None, files: Some(3) },
    };
    // Many at once: as many as fit are listed.
    let names: Vec<String> = (0..6).map(|number| format!("f{number}")).collect();
    let mut staged = Vec::new();
    for (name, member) in names.iter().flat_map(|name| [(name, &anns), (name, &bobs)]) {
        staged.push((format!("{}-{name}", member.user()), member, world.stage(member, 2).await));
    }
    let all = staged.iter().map(|(name, member, manifest)| world.list(member, name, *manifest, &quotas));
    let outcomes = futures_util::future::join_all(all).await;
    let refusals: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals.len(), 12 - 4, "{refusals:?}");
    let is_too_much = |error: &StoreError| matches!(error, StoreError::Refused(Refusal::TooMuch(_)));
    assert!(refusals.iter().all(is_too_much), "{refusals:?}");
    let listed = || async {
        let rows = world.store.files(&anns, None, 100).await.expect("a list");
        rows.into_iter().map(|row| row.header.name).collect::<Vec<_>>()
    };
    assert_eq!(listed().await.len(), 4);
    // A user's files count in all groups.
    for name in listed().await {
        let owner = world.owner(&ann, &g1).await;
        world.store.unpublish(&owner, &name, &origin()).await.expect("unlisted");
    }
    let elsewhere = world.member(&ann, &g2).await;
    for number in 0..3 {
        world.publish(&elsewhere, &format!("e{number}")).await;
    }
    let unbound = world.stage(&anns, 2).await;
    let too_much =
        TooMuch::Files { whose: Whose::User(user("ann")), limit: 3, listed: 3, name: header("f").name };
    refused(world.list(&anns, "f", unbound, &quotas).await, Refusal::TooMuch(Box::new(too_much)));
    // A replacement counts once, and what is gone does not count.
    let (header, hashes) = (&header("e0"), [8; 32]);
    let replacement =
        Publication { header, hashes, manifest: unbound, if_taken: IfTaken::Replace, quotas: &quotas };
    let replaced = world.store.publish(&elsewhere, replacement, &origin()).await.expect("replaced");
    assert!(replaced.replaced);
    world.store.delete_group(&world.owner(&ann, &g2).await, &origin()).await.expect("deleted");
    let unbound = world.stage(&anns, 2).await;
    world.list(&anns, "f", unbound, &quotas).await.expect("there is room again");
}
