//! How passwords come: by standard input, by a file, or asked for. Never by the command line, which all can read.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
};

use zeroize::Zeroizing;

use super::{Context, args::PasswordSource, exit::Failure};

/// Names a file whose lines are the passwords.
const FILE: &str = "PEER_PASSWORD_FILE";

/// A secret line.
pub(super) type Password = Zeroizing<String>;

/// As many passwords as there are prompts, in their order. With `repeat`, the last one is asked for twice.
///
/// # Errors
/// When there is no way to get them, or they are not there.
pub(super) fn read<const N: usize>(
    context: &Context,
    source: &PasswordSource,
    prompts: [&str; N],
    repeat: bool,
) -> Result<[Password; N], Failure> {
    let file = std::env::var_os(FILE).filter(|path| !path.is_empty());
    let lines = if source.password_stdin {
        first_lines(&mut io::stdin().lock(), N).map_err(|error| Failure::io("standard input", &error))?
    } else if let Some(path) = file {
        let path = context.directory.join(path);
        let opened = fs::File::open(&path);
        opened
            .and_then(|file| first_lines(&mut io::BufReader::new(file), N))
            .map_err(|error| Failure::io(path.display(), &error))?
    } else if io::stdin().is_terminal() {
        ask(&prompts, repeat)?
    } else {
        return Err(Failure::usage(
            "no password: use --password-stdin, or name a file in PEER_PASSWORD_FILE",
        ));
    };
    lines.try_into().map_err(|_| Failure::usage(format!("{N} passwords are needed, one a line")))
}

/// The first lines, without their ends.
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
    let prompt = |text: &str| {
        rpassword::prompt_password(format!("{text}: "))
            .map(Zeroizing::new)
            .map_err(|error| Failure::io("the terminal", &error))
    };
    let answers = prompts.iter().map(|text| prompt(text)).collect::<Result<Vec<_>, _>>()?;
    if repeat && answers.last() != Some(&prompt("Repeat it")?) {
        return Err(Failure::usage("the two passwords differ; nothing was changed"));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

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
