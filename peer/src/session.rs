//! The session of the user who is logged in. It is saved in a file that only its owner can read, and outlives
//! restarts.

use std::{fmt, io, path::PathBuf};

use program::durable::{self, Readers};
use proto::domain::Username;
use serde::{Deserialize, Serialize};

use crate::text;

/// A session as the tracker opened it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    /// The user who is logged in.
    #[serde(with = "text")]
    pub user: Username,
    /// The token. A secret: never printed, never sent to another tracker.
    pub token: String,
    /// The latest time at which it expires, in seconds since 1970.
    pub expires_at: i64,
    /// The name of the token that is used instead of a session, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_name: Option<String>,
    /// The trackers of the network that opened it, with commas between them.
    pub tracker: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("tracker", &self.tracker)
            .finish_non_exhaustive()
    }
}

/// The file of the session.
#[derive(Clone, Debug)]
pub(crate) struct SessionFile(PathBuf);

impl SessionFile {
    /// The session file at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the session, if one is saved.
    ///
    /// # Errors
    /// Fails when the file can't be read, or is not a session file.
    pub(crate) fn load(&self) -> io::Result<Option<Session>> {
        let Some(bytes) = durable::read_if_there(&self.0)? else { return Ok(None) };
        // The parser's error is dropped, because its message may quote the token.
        let session = serde_json::from_slice(&bytes).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a session file", self.0.display()))
        })?;
        Ok(Some(session))
    }

    /// Saves the session, and replaces any earlier one.
    ///
    /// # Errors
    /// Fails when the file system does.
    pub(crate) fn save(&self, session: &Session) -> io::Result<()> {
        durable::write(&self.0, &serde_json::to_vec(session)?, Readers::Owner)
    }

    /// Deletes the saved session.
    ///
    /// # Errors
    /// Fails when the file system does.
    pub(crate) fn forget(&self) -> io::Result<()> {
        durable::remove_if_there(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_survives_and_is_forgotten_and_shows_no_token() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = SessionFile::new(directory.path().join("session.json"));
        assert_eq!(file.load().expect("no error"), None);
        let session = Session {
            user: "user1".parse().expect("a username"),
            token: "mts_secret".into(),
            expires_at: 1_800_000_000,
            token_name: None,
            tracker: "https://127.0.0.1:7700".into(),
        };
        file.save(&session).expect("saved");
        assert_eq!(file.load().expect("read").as_ref(), Some(&session));
        assert!(!format!("{session:?}").contains("secret"));
        file.forget().expect("forgotten");
        assert_eq!(file.load().expect("no error"), None);
    }

    #[test]
    fn what_is_no_session_is_an_error_that_quotes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("session.json");
        std::fs::write(&path, r#"{"token": "mts_secret", "user": 7}"#).expect("written");
        let error = SessionFile::new(path).load().expect_err("not a session");
        assert!(!error.to_string().contains("mts_secret"), "{error}");
    }
}
