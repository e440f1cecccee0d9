//! Trust on first use: a person at a terminal looks at a tracker's CA, and says whether it is the right one.
//!
//! Without a terminal nothing is asked and nothing is trusted, and a CA that is trusted is never replaced from here.

use std::{
    io::{self, BufRead, IsTerminal as _, Write},
    time::Duration,
};

use proto::{
    durable::{self, Readers},
    pb::GetStatusRequest,
    reason::Reason,
    transport::{FetchedAuthority, fetch_authority},
};
use tonic::Status;

use super::{Context, exit::Failure, link::Daemon};
use crate::tracker::client::url_parts;

/// How long a tracker may take to show its CA.
const LIMIT: Duration = Duration::from_secs(5);

/// Does `call`. If that can't be done because the tracker's CA is not known, asks whether to trust the one that it shows,
/// and then does it again.
///
/// # Errors
/// What the call's are; that the CA is not trusted.
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
    let (_, host, port) = url_parts(&status.tracker);
    let shown = fetch_authority(host, port, LIMIT).await.map_err(|error| {
        Failure::of(Reason::TrackerUnreachable, format!("{} can't be reached: {error}", status.tracker))
    })?;
    let question = question(&status.tracker, &shown);
    // In a thread of its own, so that Ctrl-C ends it.
    let answer =
        tokio::task::spawn_blocking(move || ask(&question, &mut io::stdin().lock(), &mut io::stderr()));
    let answer = answer.await.map_err(io::Error::other).and_then(|answer| answer);
    if !answer.map_err(|error| Failure::io("the terminal", &error))? {
        return Err(Failure::of(
            Reason::AuthorityUnknown,
            "the tracker's CA is not trusted; nothing was done",
        ));
    }
    let path = context.config.home.trusted_ca();
    durable::write(&path, shown.pem.as_bytes(), Readers::Owner)
        .map_err(|error| Failure::io(path.display(), &error))?;
    Ok(call().await?)
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

/// True only for a whole `yes`.
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
            _ => out.write_all(b"Write yes or no: ")?,
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
