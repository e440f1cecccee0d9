//! The ways in which a password is read: from standard input, from a file, or from a prompt. A password is
//! never taken from the command line, which every user can read.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use proto::{domain::limits::PASSWORD_LENGTH, reason::Reason};
use zeroize::Zeroizing;

use super::{args::PasswordSource, context::Context, exit::Failure};

/// The environment variable that names a file whose lines are the passwords.
const FILE: &str = "PEER_PASSWORD_FILE";

/// The environment variable that names a file with a machine's token in its first line.
const TOKEN_FILE: &str = "PEER_TOKEN_FILE";

/// A password.
pub(super) type Password = Zeroizing<String>;

/// Reads as many passwords as there are prompts, in their order. With `repeat`, asks for the last one twice.
///
/// # Errors
/// Fails when there is no way to read them, or when some are missing.
pub(super) async fn read<const N: usize>(
    context: &Context,
    source: &PasswordSource,
    prompts: [&str; N],
    repeat: bool,
) -> Result<[Password; N], Failure> {
    let file = std::env::var_os(FILE).filter(|path| !path.is_empty());
    let lines = if source.password_stdin {
        first_lines(&mut io::stdin().lock(), N).map_err(|error| Failure::io("standard input", &error))?
    } else if let Some(path) = file {
        lines_of(context, &context.directory.join(path), N)?
    } else if io::stdin().is_terminal() {
        context.typing.during(async { ask(&prompts, repeat) }).await?
    } else {
        return Err(Failure::usage(
            "no password was given; use --password-stdin, or set PEER_PASSWORD_FILE to a file",
        ));
    };
    lines.try_into().map_err(|_| Failure::usage(format!("{N} passwords are needed, one on each line")))
}

/// Reads a machine's token, from standard input or from the file that the environment names.
///
/// # Errors
/// Fails when there is neither, or when it is empty.
pub(super) fn read_token(context: &Context, from_stdin: bool) -> Result<Password, Failure> {
    let file = std::env::var_os(TOKEN_FILE).filter(|path| !path.is_empty());
    let lines = if from_stdin {
        first_lines(&mut io::stdin().lock(), 1).map_err(|error| Failure::io("standard input", &error))?
    } else if let Some(path) = file {
        lines_of(context, &context.directory.join(path), 1)?
    } else {
        return Err(Failure::usage(
            "whose login? `peer login USER` asks for the password; a machine uses --token-stdin or PEER_TOKEN_FILE",
        ));
    };
    let token = lines.into_iter().next().map(|line| Zeroizing::new(line.trim().to_owned()));
    token.filter(|token| !token.is_empty()).ok_or_else(|| Failure::usage("the token is empty"))
}

/// Reads the first lines of a secret file, and warns if others can read it.
fn lines_of(context: &Context, path: &Path, count: usize) -> Result<Vec<Password>, Failure> {
    let read = || {
        let file = fs::File::open(path)?;
        if let Some(warning) = shared(path, &file.metadata()?)
            && !context.config.quiet
            && !context.config.json
        {
            super::render::note(&warning);
        }
        first_lines(&mut io::BufReader::new(file), count)
    };
    read().map_err(|error| Failure::io(path.display(), &error))
}

/// Whether the password will be typed at a prompt.
pub(super) fn is_typed(source: &PasswordSource) -> bool {
    let has_file = std::env::var_os(FILE).is_some_and(|path| !path.is_empty());
    !source.password_stdin && !has_file && io::stdin().is_terminal()
}

/// Checks the rules that need no tracker, before a new password is typed again.
fn check_new(password: &str) -> Result<(), Failure> {
    if PASSWORD_LENGTH.contains(&password.len()) {
        return Ok(());
    }
    let (least, most) = PASSWORD_LENGTH.into_inner();
    Err(Failure::of(
        Reason::WeakPassword,
        format!("a password has {least} to {most} bytes; nothing was changed"),
    ))
}

/// Returns a warning if other users can read the file and it belongs to this user. A file that somebody else
/// provides, such as a container's secret, has the permissions that they chose.
fn shared(path: &Path, found: &fs::Metadata) -> Option<String> {
    let ours = found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
    let path = path.display();
    (ours && found.mode() & 0o077 != 0)
        .then(|| format!("other users can read the secret in {path}; `chmod 600 {path}` prevents that"))
}

/// Reads the first lines, without their line ends.
fn first_lines(reader: &mut dyn io::BufRead, count: usize) -> io::Result<Vec<Password>> {
    let mut lines = Vec::new();
    for line in reader.lines().take(count) {
        let mut line = Zeroizing::new(line?);
        if line.ends_with('\r') {
            line.pop();
        }
        lines.push(line);
    }
    Ok(lines)
}

fn ask(prompts: &[&str], repeat: bool) -> Result<Vec<Password>, Failure> {
    let answers = prompts.iter().map(|text| prompt(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(new) = answers.last().filter(|_| repeat) {
        repeated(new, "Repeat the password")?;
    }
    Ok(answers)
}

fn prompt(text: &str) -> Result<Password, Failure> {
    let typed = rpassword::prompt_password(format!("{text}: "));
    typed.map(Zeroizing::new).map_err(|error| Failure::io("the terminal", &error))
}

/// Checks a new password, and that it is typed again.
fn repeated(new: &Password, text: &str) -> Result<(), Failure> {
    check_new(new)?;
    if *new == prompt(text)? {
        Ok(())
    } else {
        Err(Failure::usage("the two passwords differ; nothing was changed, so try again"))
    }
}

/// Has a new password typed again that was typed once.
///
/// # Errors
/// Fails when it may not be one, or when the two differ.
pub(super) async fn confirm(context: &Context, new: &Password, text: &str) -> Result<(), Failure> {
    context.typing.during(async { repeated(new, text) }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("password");
        fs::write(&path, "").expect("written");
        for (mode, told) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&path, permissions).expect("ours");
            let warning = shared(&path, &fs::metadata(&path).expect("there"));
            assert_eq!(warning.is_some_and(|text| text.contains("chmod 600")), told, "{mode:o}");
        }
    }

    #[test]
    fn a_new_password_is_checked_before_it_is_repeated() {
        for (password, is_good) in [("1234567", false), ("12345678", true), ("", false)] {
            assert_eq!(check_new(password).is_ok(), is_good, "{password}");
        }
        assert!(check_new(&"a".repeat(1_025)).is_err());
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let read = |text: &str, count| {
            first_lines(&mut text.as_bytes(), count)
                .expect("readable")
                .into_iter()
                .map(|line| line.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(read("old secret \r\nnew\nmore", 2), ["old secret ", "new"]);
        assert_eq!(read("only", 2), ["only"]);
        assert!(read("", 1).is_empty());
    }
}
