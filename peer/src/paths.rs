//! Paths as bytes. A path of Unix need not be UTF-8, so each form that leaves the process has two parts: text
//! for people, in which bytes that are not UTF-8 are replaced, and the exact bytes, only where they differ.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use data_encoding::BASE64;

/// The two fields of a path in a message: the text, and the bytes if the path is not UTF-8.
pub(crate) fn to_wire(path: &Path) -> (String, Bytes) {
    match path.to_str() {
        Some(text) => (text.to_owned(), Bytes::new()),
        None => (path.to_string_lossy().into_owned(), Bytes::copy_from_slice(path.as_os_str().as_bytes())),
    }
}

/// The path of a message's two fields.
pub(crate) fn from_wire(text: String, exact: &[u8]) -> PathBuf {
    if exact.is_empty() { text.into() } else { OsString::from_vec(exact.to_vec()).into() }
}

/// The exact form of a path in JSON: its bytes as base64. `None` if the path is UTF-8, because its text is
/// exact then.
pub(crate) fn exact(path: &Path) -> Option<String> {
    exact_bytes(&to_wire(path).1)
}

/// As [`exact`], for the bytes of a message.
pub(crate) fn exact_bytes(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| BASE64.encode(bytes))
}

/// A name or a path as one word of a command that can be pasted into a shell.
pub(crate) fn word(text: impl ToString) -> String {
    shell_words::quote(&text.to_string()).into_owned()
}

/// `#[serde(with = "paths::stored")]`: a string, or an object with the bytes if the path is not UTF-8.
pub(crate) mod stored {
    use std::{
        os::unix::ffi::OsStringExt as _,
        path::{Path, PathBuf},
    };

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::{BASE64, OsString, exact};

    #[derive(serde::Serialize, Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(PathBuf),
        Exact { base64: String },
    }

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match exact(path) {
            None => Stored::Text(path.to_owned()),
            Some(base64) => Stored::Exact { base64 },
        }
        .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        match Stored::deserialize(deserializer)? {
            Stored::Text(path) => Ok(path),
            Stored::Exact { base64 } => {
                let bytes = BASE64.decode(base64.as_bytes()).map_err(D::Error::custom)?;
                Ok(OsString::from_vec(bytes).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_survives() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Kept(#[serde(with = "stored")] PathBuf);

        for bytes in [&b"/plain"[..], "/größe".as_bytes(), b"/caf\xe9/x\xff"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let (text, exact) = to_wire(&path);
            assert_eq!(from_wire(text, &exact), path);
            let kept = serde_json::to_string(&Kept(path.clone())).expect("JSON");
            assert_eq!(serde_json::from_str::<Kept>(&kept).expect("read").0, path, "{kept}");
        }
        assert_eq!(exact(Path::new("/plain")), None);
        assert_eq!(exact(&from_wire(String::new(), b"\xe9")).as_deref(), Some("6Q=="));
    }
}
