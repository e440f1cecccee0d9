//! The link of an invitation: whatever is accepted survives its text and does not show its secret.
#![no_main]

use domain::invite::{InviteLink, MAX_LINK, MAX_TRACKERS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(link) = text.parse::<InviteLink>() else { return };
    assert!(text.len() <= MAX_LINK && (1..=MAX_TRACKERS).contains(&link.trackers.len()), "{text:?}");
    assert!(!format!("{link:?}").contains(&link.secret.text()), "{text:?}");
    let printed = link.text();
    assert!(printed.is_ascii(), "{printed:?}");
    assert_eq!(printed.parse().as_ref(), Ok(&link), "{text:?}");
});
