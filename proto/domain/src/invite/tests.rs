use proptest::prelude::*;

use super::*;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODw";

fn link(place: &str) -> String {
    format!("minitorrent://{place}#{}.{SECRET}", "ab".repeat(32))
}

#[test]
fn a_link_says_where_what_and_by_what_right() {
    let text = link("files.example:7700,[fd00::1]:7701/g1/movie.mp4");
    let parsed: InviteLink = text.parse().expect("a link");
    let trackers: Vec<_> = parsed.trackers.iter().map(|one| (one.host(), one.port())).collect();
    assert_eq!(trackers, [("files.example", 7700), ("fd00::1", 7701)]);
    assert_eq!(parsed.group.as_str(), "g1");
    assert_eq!(parsed.file.as_ref().map(FileName::as_str), Some("movie.mp4"));
    assert_eq!(parsed.authority, [0xab; 32]);
    assert_eq!(parsed.secret.text(), SECRET);
    assert_eq!(parsed.text(), text);
    assert!(!format!("{parsed:?}").contains(SECRET), "a secret is not for logs");
}

#[test]
fn names_may_hold_what_links_are_made_of() {
    let parsed: InviteLink = link("t:1/a%23b%20%25/%C3%BCber%3F.txt").parse().expect("a link");
    assert_eq!(parsed.group.as_str(), "a#b %");
    assert_eq!(parsed.file.as_ref().map(FileName::as_str), Some("über?.txt"));
    assert_eq!(parsed.text(), link("t:1/a%23b%20%25/%C3%BCber%3F.txt"));
}

#[test]
fn what_is_no_link_says_why() {
    let good = link("t:1/g1");
    for (text, error) in [
        (String::new(), LinkError::Scheme),
        ("https://t:1/g1".into(), LinkError::Scheme),
        (good.replace('#', ""), LinkError::Fragment),
        (good.replace(SECRET, ""), LinkError::Secret),
        // The last character has bits that encode nothing.
        (good.replace(SECRET, "AAECAwQFBgcICQoLDA0ODx"), LinkError::Secret),
        (good.replace(".AAEC", "AAEC"), LinkError::Fragment),
        (good.replace("abab", "ab"), LinkError::Fragment),
        (format!("{good}x"), LinkError::Secret),
        (link("t:1"), LinkError::Group),
        (link("t:1/"), LinkError::Group),
        (link("t:1/a%2Fb"), LinkError::Group),
        (link("t:1/a%"), LinkError::Group),
        (link("t:1/a%zz"), LinkError::Group),
        (link("t:1/%ff"), LinkError::Group),
        (link("t:1/g1/"), LinkError::File),
        (link("t:1/g1/.."), LinkError::File),
        (link("t:1/g1/a/b"), LinkError::File),
        (link("t/g1"), LinkError::Tracker),
        (link("t:0/g1"), LinkError::Tracker),
        (link("t:70000/g1"), LinkError::Tracker),
        (link("t:+1/g1"), LinkError::Tracker),
        (link(":1/g1"), LinkError::Tracker),
        (link("fd00::1:1/g1"), LinkError::Tracker),
        (link("[t]:1/g1"), LinkError::Tracker),
        (link("u@t:1/g1"), LinkError::Tracker),
        (link("t:1,/g1"), LinkError::Tracker),
        (link(&format!("{}t:1/g1", "t:1,".repeat(8))), LinkError::Tracker),
        (link(&format!("t:1/{}", "a".repeat(5_000))), LinkError::TooLong),
    ] {
        assert_eq!(text.parse::<InviteLink>(), Err(error), "{text}");
    }
}

fn trackers() -> impl Strategy<Value = Vec<HostPort>> {
    let host = prop_oneof!["[a-z0-9]{1,9}(\\.[a-z]{1,5})?", any::<Ipv6Addr>().prop_map(|ip| ip.to_string())];
    let one = (host, 1..=u16::MAX).prop_map(|(host, port)| HostPort::new(&host, port).expect("an address"));
    prop::collection::vec(one, 1..=MAX_TRACKERS)
}

proptest! {
    #[test]
    fn a_link_survives_its_text(
        trackers in trackers(),
        group in "[\\PC]{1,20}".prop_filter_map("a group", |text| GroupId::stored(&text).ok()),
        file in prop::option::of("[\\PC]{1,40}".prop_filter_map("a file", |text| FileName::stored(&text).ok())),
        authority: [u8; 32],
        secret: [u8; 16],
    ) {
        let link = InviteLink { trackers, group, file, authority, secret: secret.into() };
        let text = link.text();
        prop_assert!(text.is_ascii() && !text.contains(' '));
        prop_assert_eq!(text.parse(), Ok(link));
    }

    #[test]
    fn no_text_is_a_fault(text in "(minitorrent://)?[\\PC#/.:,%\\[\\]]{0,200}") {
        let _ = text.parse::<InviteLink>();
    }
}
