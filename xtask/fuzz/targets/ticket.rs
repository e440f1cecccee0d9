//! Tickets: only what the tracker signed is accepted, byte for byte, and only at its time.
#![no_main]

use std::sync::LazyLock;

use fuzz::{NOW, SIGNER, claims};
use libfuzzer_sys::fuzz_target;
use proto::ticket::Verifier;

static GOOD: LazyLock<String> = LazyLock::new(|| SIGNER.sign(&claims()));

fuzz_target!(|input: (u64, &[u8])| {
    let (now, data) = input;
    let verifier = Verifier::new([SIGNER.verifying_key().clone()]);
    // The bytes as they are; with the footer of a real ticket, so that its key is found; and as changes of a real ticket.
    let text = String::from_utf8_lossy(data).into_owned();
    let footer = GOOD.rsplit_once('.').expect("a footer").1;
    let mut changed = GOOD.clone().into_bytes();
    for change in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len();
        changed[at] ^= change[2];
    }
    let changed = String::from_utf8_lossy(&changed).into_owned();
    for ticket in [text.clone(), format!("v4.public.{text}.{footer}"), changed] {
        if ticket != *GOOD {
            assert!(verifier.verify(&ticket, NOW).is_err(), "{ticket}");
        }
    }
    if verifier.verify(&GOOD, now).is_ok() {
        assert!((NOW - 60..=NOW + 1_800 + 60).contains(&now), "{now}");
    }
});
