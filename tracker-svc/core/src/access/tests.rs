//! The table, and the proofs that it admits to.

use std::collections::HashSet;

use super::*;

fn caller(path: &str) -> Caller {
    let now = SystemTime::UNIX_EPOCH;
    let session = Session {
        hash: [1; 32].into(),
        user: "ann".parse().expect("a username"),
        account: AccountId(1),
        disabled: false,
        opened: now,
        used: now,
    };
    authenticate(requirement(path).expect("in the table"), session, now).expect("a living session")
}

fn place(standing: Standing) -> Option<Place> {
    Some(Place { group: GroupKey(1), epoch: 1, standing })
}

#[test]
fn each_method_has_one_line_and_others_none() {
    let paths: HashSet<_> = TABLE.iter().map(|(path, _)| path).collect();
    assert_eq!(paths.len(), TABLE.len());
    for path in ["", "/", "/minitorrent.v1.AuthService/", "/minitorrent.v1.AuthService/DropTables"] {
        assert_eq!(requirement(path), None);
    }
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
