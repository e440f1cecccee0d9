//! Quotas of the operator.

use crate::support::Tracker;

#[test]
fn what_the_operator_does_not_allow_is_refused_with_figures() {
    let tracker =
        Tracker::start_with(&[("TRACKER_MAX_GROUP_BYTES", "1KiB"), ("TRACKER_GROUP_CREATOR", "ann")]);
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    std::fs::write(bob.path("movie.mp4"), [7; 1025]).expect("written");
    let refused = bob.line("upload movie.mp4 g1 --json");
    assert_eq!((refused.code, refused.reason().as_str()), (13, "QUOTA_EXCEEDED"));
    let figures = "group g1 may list 1.0 KiB; 0 B are listed and movie.mp4 has 1.0 KiB; unpublish something or ask the operator";
    assert!(refused.stderr.contains(figures), "{}", refused.stderr);
    assert_eq!(bob.json("list-shares")["shares"], serde_json::json!([]));
    assert_eq!(bob.refused(5, "create-group g2"), "GROUP_CREATION_CLOSED");
}
