//! What one question to the store finds.

use super::*;

impl World {
    /// What one question finds for the caller of a method for members.
    pub(super) async fn admit(
        &self,
        caller: &Caller,
        group: &GroupId,
        asked: Asked<'_>,
    ) -> Result<Option<FileRow>, Refusal> {
        let evidence = self.store.evidence(caller.session(), group, asked).await.expect("a read");
        let rule = access::rule("/minitorrent.v1.SwarmService/FindPeers").expect("a rule");
        let (caller_now, admission) =
            access::admit_by::<Membership, _>(rule, group, evidence, SystemTime::now())?;
        assert_eq!(caller_now.account(), caller.account());
        admission.map(|(_, found)| found)
    }
}

pub(super) async fn one_question_finds_all_that_decides_a_call(world: World) {
    let (ann, bob) = (world.account("ann").await, world.account("bob").await);
    let (g1, g2, name) = (group("g1"), group("g2"), header("f").name);
    let gone = world.login("bob").await;
    world.store.end_session(&gone, &origin()).await.expect("ended");
    world.create(&ann, &g1).await;
    world.create(&bob, &g2).await;
    let member = world.member(&ann, &g1).await;
    world.publish(&member, "f").await;
    let by_name = world.admit(&ann, &g1, Asked::Named(&name)).await.expect("the owner").expect("a file");
    assert_eq!((&by_name.header, &by_name.publisher), (&header("f"), ann.user()));
    let by_id = world.admit(&ann, &g1, Asked::File(by_name.id)).await.expect("the owner");
    assert_eq!(by_id.as_ref(), Some(&by_name));
    assert_eq!(by_id, world.store.file_by_id(&member, by_name.id).await.expect("a read"));
    assert_eq!(world.admit(&ann, &g1, Asked::Nothing).await, Ok(None));
    assert_eq!(world.admit(&ann, &g1, Asked::Named(&header("another").name)).await, Ok(None));
    // Each group has its own files.
    assert_eq!(world.admit(&bob, &g2, Asked::File(by_name.id)).await, Ok(None));
    assert_eq!(world.admit(&bob, &g2, Asked::Named(&name)).await, Ok(None));
    let outside = Err(Refusal::NotAMember);
    assert_eq!(world.admit(&bob, &g1, Asked::Named(&name)).await, outside);
    assert_eq!(world.admit(&bob, &group("none"), Asked::Named(&name)).await, outside);
    world.store.ask(&bob, &g1, &origin()).await.expect("a request");
    assert_eq!(world.admit(&bob, &g1, Asked::Named(&name)).await, outside);
    assert_eq!(world.admit(&gone, &g2, Asked::Nothing).await, Err(Refusal::NotLoggedIn));

    // A token is found in the same way, with its scope.
    let scope = |groups: Option<&str>| TokenScope {
        name: groups.unwrap_or("all").parse().expect("a name"),
        allow: Allow::Read,
        groups: groups.map(|name| [group(name)].into()),
    };
    for (number, groups, found) in [(1, None, Ok(Some(by_name.clone()))), (2, Some("g2"), outside)] {
        let hash = SessionHash::from([200 + number; 32]);
        let token = NewToken::new(hash, scope(groups), None, SystemTime::now()).expect("a token");
        world.store.create_token(&ann, &token, &origin()).await.expect("made");
        let session = world.store.session(hash).await.expect("a read").expect("a session");
        let rule = access::rule("/minitorrent.v1.SwarmService/FindPeers").expect("a rule");
        let machine = access::authenticate(rule, session, SystemTime::now()).expect("allowed");
        assert_eq!(world.admit(&machine, &g1, Asked::Named(&name)).await, found);
    }
}
