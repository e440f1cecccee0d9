//! Names of users, groups and files: whatever is accepted is one harmless component of a path, shows what it
//! is, and survives its text.
#![no_main]

use std::path::{Component, Path};

use domain::{FileName, GroupId, Username, visible};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<FileName>() {
        let parts: Vec<_> = Path::new(name.as_str()).components().collect();
        assert!(matches!(parts[..], [Component::Normal(part)] if part == text), "{text:?}");
        assert!(text.len() <= 255 && !text.contains(['/', '\\', '\0', '\n']), "{text:?}");
        assert!(!text.to_lowercase().starts_with(".minitorrent"), "{text:?}");
        assert_eq!(visible::escape(text), text, "what is accepted is shown as it is");
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    if let Ok(name) = text.parse::<GroupId>() {
        assert!(text.len() <= 256 && text.chars().count() <= 64, "{text:?}");
        assert_eq!(visible::escape(text), text);
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    if let Ok(name) = text.parse::<Username>() {
        assert!((3..=32).contains(&text.len()) && text.is_ascii(), "{text:?}");
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    // Whatever is printed contains nothing hidden.
    let printed = visible::escape(text).to_string();
    assert_eq!(visible::escape(&printed).to_string(), printed);
});
