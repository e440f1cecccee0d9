//! Trust on first use: a user at a terminal checks a tracker's CA, and says whether it is the right one.
//!
//! Without a terminal, nothing is asked and nothing is trusted. A CA that is already trusted is never
//! replaced from here.

use std::{
    io::{self, BufRead, IsTerminal as _, Write},
    time::Duration,
};

use program::durable::{self, Readers};
use proto::{pb::GetStatusRequest, reason::Reason};
use tonic::Status;
use transport::{FetchedAuthority, fetch_authority};

use super::{context::Context, exit::Failure, link::Daemon};
use crate::tracker::list::url_parts;

/// How long a tracker may take to show its CA.
const LIMIT: Duration = Duration::from_secs(5);

/// Does `call`. If it fails because the tracker's CA is not known, asks the user whether to trust the CA that
/// the tracker shows, and then does it again.
///
/// # Errors
/// Fails with the call's error, or when the CA is not trusted.
pub(super) async fn first_used<T>(
    context: &Context,
    daemon: &Daemon,
    call: impl AsyncFn() -> Result<T, Status>,
) -> Result<T, Failure> {
    let refused = match call().await {
        Ok(answer) => return Ok(answer),
        Err(status) => status,
    };
    let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    if Reason::of(&refused) != Some(Reason::AuthorityUnknown) || !can_ask {
        return Err(refused.into());
    }
    let status = daemon.control().get_status(GetStatusRequest {}).await?.into_inner();
    let (tracker, shown) = first_that_answers(&status.trackers).await?;
    let question = question(&tracker, &shown);
    // The question is asked in a thread of its own, so that Ctrl-C ends it.
    let answer =
        tokio::task::spawn_blocking(move || ask(&question, &mut io::stdin().lock(), &mut io::stderr()));
    let answer = context.typing.during(answer).await.map_err(io::Error::other).and_then(|answer| answer);
    if !answer.map_err(|error| Failure::io("the terminal", &error))? {
        return Err(Failure::of(
            Reason::AuthorityUnknown,
            "the tracker's CA was not trusted, so nothing was done",
        ));
    }
    let path = context.config.home.trusted_ca();
    durable::write(&path, shown.pem.as_bytes(), Readers::Owner)
        .map_err(|error| Failure::io(path.display(), &error))?;
    Ok(call().await?)
}

/// Fetches the CA from the first tracker that answers.
async fn first_that_answers(trackers: &[String]) -> Result<(String, FetchedAuthority), Failure> {
    let mut errors = Vec::new();
    for tracker in trackers {
        let (_, host, port) = url_parts(tracker);
        match fetch_authority(host, port, LIMIT).await {
            Ok(shown) => return Ok((tracker.clone(), shown)),
            Err(error) => errors.push(format!("{tracker} can't be reached: {error}")),
        }
    }
    Err(Failure::of(Reason::TrackerUnreachable, errors.join("; ")))
}

fn question(tracker: &str, shown: &FetchedAuthority) -> String {
    format!(
        "This peer does not know {tracker} yet. The fingerprint of its CA is\n\n  {}\n\n\
         Compare it with what the tracker's operator tells you, who reads it with\n  \
         openssl x509 -noout -fingerprint -sha256 -in ca.pem\n\
         Anybody on the way there could show you another one. Is it the same (yes or no)? ",
        shown.fingerprint
    )
}

/// Returns true only for a whole `yes`.
fn ask(question: &str, answers: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<bool> {
    out.write_all(question.as_bytes())?;
    loop {
        out.flush()?;
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "yes" => return Ok(true),
            "no" | "n" => return Ok(false),
            _ => out.write_all(b"Please type yes or no: ")?,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_a_whole_yes_is_one() {
        for (typed, trusted) in [
            ("yes\n", true),
            ("YES\r\n", true),
            ("y\nsure\n\nyes\n", true),
            ("no\nyes\n", false),
            ("n\n", false),
            ("y\n", false),
            ("", false),
        ] {
            let mut out = Vec::new();
            assert_eq!(ask("Is it? ", &mut typed.as_bytes(), &mut out).unwrap(), trusted, "{typed:?}");
            assert!(out.starts_with(b"Is it? "));
        }
    }
}
