//! Roles: readers publish nothing, managers let others in.

use crate::support::{MIB, Tracker, assert_same};

#[test]
fn readers_fetch_and_managers_let_in() {
    let tracker = Tracker::start();
    let (ann, bob, cem) = (tracker.user("ann"), tracker.user("bob"), tracker.user("cem"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", MIB, 1);
    ann.ok(&["set-role", "g1", "bob", "reader"]);
    assert_eq!(bob.json("list-groups --mine")["groups"][0]["standing"], "reader");
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &bob.path("out/data"));
    std::fs::write(bob.path("his"), "x").expect("written");
    assert_eq!(bob.refused(5, "upload his g1"), "READS_ONLY");
    assert_eq!(bob.refused(5, "list-requests g1"), "NOT_THE_OWNER");

    ann.ok(&["set-role", "g1", "bob", "manager"]);
    bob.ok(&["upload", "his", "g1"]);
    cem.ok(&["join-group", "g1"]);
    bob.ok(&["accept-request", "g1", "cem"]);
    assert_eq!(ann.json("list-members g1")["members"][1]["role"], "manager");
    for (line, reason) in [("set-role g1 cem manager", "NOT_THE_OWNER"), ("delete-group g1", "NOT_THE_OWNER")]
    {
        assert_eq!(bob.refused(5, line), reason, "{line}");
    }
    assert_eq!(bob.refused(6, "remove-member g1 ann"), "TARGET_IS_OWNER");
    bob.ok(&["remove-member", "g1", "cem"]);
    ann.refused(2, "set-role g1 bob king");
    assert_eq!(ann.refused(3, "set-role g1 cem reader"), "USER_NOT_FOUND");
}
