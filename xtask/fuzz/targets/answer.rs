//! The body of a GetChunk answer, as a downloader parses it, in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u16>, &[u8])| {
    let (cuts, body) = input;
    let whole = peer::fuzzing::answer(body, &[]);
    assert_eq!(whole, peer::fuzzing::answer(body, &cuts), "how a body is cut must not matter");
    if let Ok(items) = whole {
        let data: usize = items.iter().map(|(_, _, data)| data.len()).sum();
        assert!(data <= body.len(), "more data than was sent");
    }
});
