//! The table, and the proofs that it admits to.

use std::collections::HashSet;

use super::*;
use crate::session::Machine;

/// A session that was used at this time.
fn session(used: SystemTime) -> Session {
    Session {
        hash: [1; 32].into(),
        user: "ann".parse().expect("a username"),
        account: AccountId(1),
        disabled: false,
        opened: used,
        used,
        machine: None,
    }
}

fn caller(path: &str) -> Caller {
    let now = SystemTime::UNIX_EPOCH;
    authenticate(rule(path).expect("in the table"), session(now), now).expect("a living session")
}

/// A call by a token.
fn by_token(path: &str, allow: Allow, groups: Option<&[&str]>) -> Result<Caller, Refusal> {
    let groups = groups.map(|all| all.iter().map(|group| group.parse().expect("a group")).collect());
    let scope = Arc::new(TokenScope { name: "ci".parse().expect("a name"), allow, groups });
    let now = SystemTime::UNIX_EPOCH;
    let machine = Some(Machine { scope, expires: now + std::time::Duration::from_secs(1) });
    let session = Session { machine, ..session(now) };
    authenticate(rule(path).expect("in the table"), session, now)
}

fn place(standing: Standing) -> Option<Place> {
    Some(Place { group: GroupKey(1), epoch: 1, standing })
}

#[test]
fn each_method_has_one_line_and_others_none() {
    let paths: HashSet<_> = TABLE.iter().map(|(path, ..)| path).collect();
    assert_eq!(paths.len(), TABLE.len());
    for path in ["", "/", "/minitorrent.v1.AuthService/", "/minitorrent.v1.AuthService/DropTables"] {
        assert_eq!(requirement(path), None);
    }
    assert_eq!(requirement("/minitorrent.v1.GroupService/DeleteGroup"), Some(Requirement::Owner));
}

#[test]
fn the_stricter_of_table_and_proof_holds() {
    let group: GroupId = "g1".parse().expect("a group name");
    let member_method = caller("/minitorrent.v1.FileService/ListFiles");
    let owner_method = caller("/minitorrent.v1.GroupService/DeleteGroup");
    let leave = caller("/minitorrent.v1.GroupService/LeaveGroup");
    for standing in [Standing::None, Standing::Requested] {
        let refused = admit::<Membership>(&member_method, &group, place(standing));
        assert_eq!(refused.err(), Some(Refusal::NotAMember));
    }
    assert_eq!(admit::<Membership>(&member_method, &group, None).err(), Some(Refusal::NotAMember));
    assert!(admit::<Membership>(&member_method, &group, place(Standing::Member)).is_ok());
    // If a handler asks for too little, the table applies. If it asks for more, that applies.
    let slack = admit::<Membership>(&owner_method, &group, place(Standing::Member));
    assert_eq!(slack.err(), Some(Refusal::NotTheOwner));
    let strict = admit::<Ownership>(&member_method, &group, place(Standing::Member));
    assert_eq!(strict.err(), Some(Refusal::NotTheOwner));
    assert!(admit::<Ownership>(&owner_method, &group, place(Standing::Owner)).is_ok());
    assert!(admit::<Applicant>(&leave, &group, place(Standing::Requested)).is_ok());
    assert_eq!(admit::<Applicant>(&leave, &group, place(Standing::None)).err(), Some(Refusal::NotAMember));
}

#[test]
fn a_caller_and_a_proof_say_what_the_store_said() {
    let group: GroupId = "g1".parse().expect("a group name");
    let path = "/minitorrent.v1.SwarmService/FindPeers";
    let person = caller(path);
    assert!(person.token().is_none() && person.covers(&group));
    assert_eq!(person.session_ends(), SystemTime::UNIX_EPOCH + crate::session::ABSOLUTE);
    let machine = by_token(path, Allow::Share, None).expect("allowed");
    let scope = machine.token().expect("a token");
    assert_eq!((scope.name.as_str(), scope.allow), ("ci", Allow::Share));
    let stored = Place { group: GroupKey(7), epoch: 9, standing: Standing::Reader };
    let member: Membership = admit(&machine, &group, Some(stored)).expect("a member");
    assert_eq!((member.key(), member.epoch()), (GroupKey(7), 9));
    assert_eq!((member.group(), member.account()), (&group, AccountId(1)));
}

#[test]
fn files_are_unlisted_by_publisher_or_owner() {
    let group: GroupId = "g1".parse().expect("a group name");
    let path = caller("/minitorrent.v1.FileService/UnpublishFile");
    let (ann, bob) = ("ann".parse().expect("a name"), "bob".parse().expect("a name"));
    let member: Membership = admit(&path, &group, place(Standing::Member)).expect("a member");
    assert_eq!(may_unlist(&member, &ann), Ok(()));
    assert_eq!(may_unlist(&member, &bob), Err(Refusal::NotThePublisher));
    let owner: Membership = admit(&path, &group, place(Standing::Owner)).expect("the owner");
    assert_eq!(may_unlist(&owner, &bob), Ok(()));
}

#[test]
fn a_token_calls_what_its_scope_allows() {
    let auth = "/minitorrent.v1.AuthService";
    for (path, least) in [
        ("/minitorrent.v1.FileService/ListFiles", Some(Allow::Read)),
        ("/minitorrent.v1.FileService/PublishFile", Some(Allow::Share)),
        ("/minitorrent.v1.GroupService/RemoveMember", Some(Allow::Manage)),
        ("/minitorrent.v1.GroupService/DeleteGroup", None),
        (&format!("{auth}/CreateToken"), None),
        (&format!("{auth}/ChangePassword"), None),
    ] {
        for allow in Allow::ALL {
            let may = least.is_some_and(|least| allow >= least);
            let expected = if may { None } else { Some(Refusal::OutOfScope) };
            assert_eq!(by_token(path, allow, None).err(), expected, "{path} {allow:?}");
        }
    }
    // A rule for people alone lets in no token.
    let rule = Rule::from(Requirement::Member);
    assert_eq!(rule.machines, None);
}

#[test]
fn a_token_acts_in_its_groups_and_never_as_more_than_it_allows() {
    let (g1, g2): (GroupId, GroupId) = ("g1".parse().expect("a group"), "g2".parse().expect("a group"));
    let list =
        by_token("/minitorrent.v1.FileService/ListFiles", Allow::Manage, Some(&["g1"])).expect("allowed");
    assert!(admit::<Membership>(&list, &g1, place(Standing::Owner)).is_ok());
    assert_eq!(admit::<Membership>(&list, &g2, place(Standing::Owner)).err(), Some(Refusal::NotAMember));
    let unpublish = |allow| {
        let caller = by_token("/minitorrent.v1.FileService/UnpublishFile", allow, None).expect("allowed");
        admit::<Membership>(&caller, &g1, place(Standing::Owner)).expect("a member").is_owner()
    };
    assert_eq!((unpublish(Allow::Share), unpublish(Allow::Manage)), (false, true));
}

#[test]
fn roles_do_what_they_say() {
    let group: GroupId = "g1".parse().expect("a group name");
    let try_as = |path: &str, standing| {
        let caller = caller(&format!("/minitorrent.v1.{path}"));
        admit::<Membership>(&caller, &group, place(standing)).err()
    };
    use Standing::{Manager, Member, Owner, Reader};
    for (path, least, refusal) in [
        ("FileService/GetManifest", Reader, Refusal::NotAMember),
        ("FileService/PublishFile", Member, Refusal::ReadsOnly),
        ("GroupService/AcceptJoinRequest", Manager, Refusal::NotAManager),
        ("GroupService/SetRole", Owner, Refusal::NotTheOwner),
    ] {
        for standing in [Standing::None, Standing::Requested, Reader, Member, Manager, Owner] {
            let expected = match standing {
                _ if standing >= least => None,
                Standing::None | Standing::Requested => Some(Refusal::NotAMember),
                _ => Some(refusal.clone()),
            };
            assert_eq!(try_as(path, standing), expected, "{path} {standing:?}");
        }
    }
}

#[test]
fn what_was_found_is_given_to_members_with_a_session_alone() {
    let (group, now): (GroupId, _) = ("g1".parse().expect("a group name"), SystemTime::UNIX_EPOCH);
    let path = "/minitorrent.v1.SwarmService/FindPeers";
    let admitted = |session: Option<Session>, place| {
        let evidence = Evidence::new(session, place, Some("found"));
        let (caller, admission) =
            admit_by::<Membership, _>(rule(path).expect("in the table"), &group, evidence, now)?;
        let (member, found) = admission?;
        assert_eq!(caller.user(), member.user());
        Ok(found)
    };
    let member = place(Standing::Reader);
    assert_eq!(admitted(Some(session(now)), member), Ok(Some("found")));
    for outside in [None, place(Standing::None), place(Standing::Requested)] {
        assert_eq!(admitted(Some(session(now)), outside), Err(Refusal::NotAMember));
    }
    let disabled = Session { disabled: true, ..session(now) };
    for over in [None, Some(disabled), Some(session(now - crate::session::IDLE))] {
        assert_eq!(admitted(over, member), Err(Refusal::NotLoggedIn));
    }
}
