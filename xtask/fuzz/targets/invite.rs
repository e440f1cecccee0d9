//! The link of an invitation: whatever is accepted survives its text and does not show its secret.
#![no_main]

use domain::invite::{InviteLink, InviteSecret, MAX_LINK, MAX_TRACKERS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(link) = text.parse::<InviteLink>() else { return };
    assert!(text.len() <= MAX_LINK && (1..=MAX_TRACKERS).contains(&link.trackers.len()), "{text:?}");
    // A group's name may contain the text of the secret, so a search for it would find that.
    let other = InviteLink { secret: InviteSecret::from([0; InviteSecret::BYTES]), ..link.clone() };
    assert_eq!(format!("{link:?}"), format!("{other:?}"), "{text:?}");
    let printed = link.text();
    assert!(printed.is_ascii(), "{printed:?}");
    assert_eq!(printed.parse().as_ref(), Ok(&link), "{text:?}");
});
