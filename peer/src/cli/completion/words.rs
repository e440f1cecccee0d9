//! The words of a line as typed: their quotes taken off, and put on again.

/// A quote that was opened and not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Quote {
    #[default]
    None,
    Single,
    Double,
}

/// A word as it was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// The word without quotes.
    pub(super) text: String,
    /// The quote that is open at its end.
    pub(super) open: Quote,
    /// It begins with an unquoted `~`, which stands for the user's home directory.
    pub(super) tilde: bool,
}

impl Typed {
    /// Reads a word as a shell passes it.
    pub(super) fn of(raw: &str) -> Self {
        let (word, rest) = read(raw, false);
        debug_assert!(rest.is_empty(), "only an unquoted blank ends a word");
        word
    }

    /// The word with its home directory in place of `~`.
    pub(super) fn with_home(&self) -> String {
        match (self.text.strip_prefix('~'), std::env::var("HOME")) {
            (Some(rest), Ok(home)) if self.tilde && (rest.is_empty() || rest.starts_with('/')) => home + rest,
            _ => self.text.clone(),
        }
    }

    /// The candidate, quoted so that it can take this word's place behind its open quote. `None` if it can't be
    /// written there.
    pub(super) fn quoted(&self, candidate: &str) -> Option<String> {
        match self.open {
            Quote::None => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%".contains(c) || !c.is_ascii();
                let mut out = String::new();
                for (at, c) in candidate.char_indices() {
                    let is_home = at == 0 && c == '~' && self.tilde;
                    if !plain(c) && !is_home {
                        out.push('\\');
                    }
                    out.push(c);
                }
                Some(out)
            }
            Quote::Single => Some(candidate.replace('\'', r"'\''")),
            // A shell with a history takes ! as a command between double quotes, and a backslash before it is kept.
            Quote::Double if candidate.contains('!') => None,
            Quote::Double => {
                let mut out = String::new();
                for c in candidate.chars() {
                    if "\"$`\\".contains(c) {
                        out.push('\\');
                    }
                    out.push(c);
                }
                Some(out)
            }
        }
    }
}

/// Reads one word. Returns also what follows it: with `to_blank`, from the first unquoted blank.
fn read(raw: &str, to_blank: bool) -> (Typed, &str) {
    let mut word = Typed { tilde: raw.starts_with('~'), ..Typed::default() };
    let mut rest = raw.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        match (c, word.open) {
            (c, Quote::None) if to_blank && c.is_whitespace() => return (word, &raw[at..]),
            ('\'', Quote::None) => word.open = Quote::Single,
            ('"', Quote::None) => word.open = Quote::Double,
            ('\'', Quote::Single) | ('"', Quote::Double) => word.open = Quote::None,
            ('\\', Quote::None) => word.text.extend(rest.next().map(|(_, c)| c)),
            ('\\', Quote::Double) => match rest.next_if(|(_, c)| "\"$`\\".contains(*c)) {
                Some((_, c)) => word.text.push(c),
                None => word.text.push('\\'),
            },
            (c, _) => word.text.push(c),
        }
    }
    (word, "")
}

/// Splits a line into its words, each with its place in bytes. The last one is the word at the end of the line,
/// and empty after a blank.
pub(super) fn split(line: &str) -> Vec<(usize, Typed)> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.trim_start();
        let (word, after) = read(start, true);
        words.push((line.len() - start.len(), word));
        if after.is_empty() {
            return words;
        }
        rest = after;
    }
}

/// Joins what bash splits at `=`: `--home=DIR` comes as three words. Returns the words, the new index, and the
/// part of the word at the index that bash does not replace.
pub(super) fn join_at_equals(words: Vec<String>, index: usize) -> (Vec<String>, usize, String) {
    let mut joined: Vec<String> = Vec::new();
    let (mut new_index, mut kept) = (0, String::new());
    for (at, word) in words.into_iter().enumerate() {
        let continues = joined.last().is_some_and(|last| {
            last.starts_with("--") && (word == "=" && !last.contains('=') || last.ends_with('='))
        });
        match joined.last_mut().filter(|_| continues) {
            Some(last) => {
                if at == index {
                    kept = format!("{}=", last.trim_end_matches('='));
                }
                last.push_str(&word);
            }
            None => joined.push(word),
        }
        if at == index {
            new_index = joined.len() - 1;
        }
    }
    (joined, new_index, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_apart_and_keep_their_open_quote() {
        for (line, words, open) in [
            ("", &[(0, "")][..], Quote::None),
            ("download g1 ", &[(0, "download"), (9, "g1"), (12, "")], Quote::None),
            ("  a  b", &[(2, "a"), (5, "b")], Quote::None),
            (r"a my\ mo", &[(0, "a"), (2, "my mo")], Quote::None),
            ("a 'my mo", &[(0, "a"), (2, "my mo")], Quote::Single),
            (r#"a "my \"mo\x"#, &[(0, "a"), (2, r#"my "mo\x"#)], Quote::Double),
            ("a 'b'\"c\"d", &[(0, "a"), (2, "bcd")], Quote::None),
            ("a \\", &[(0, "a"), (2, "")], Quote::None),
        ] {
            let split = split(line);
            let texts: Vec<_> = split.iter().map(|(at, word)| (*at, word.text.as_str())).collect();
            assert_eq!(texts, words, "{line}");
            assert_eq!(split.last().map(|(_, word)| word.open), Some(open), "{line}");
        }
    }

    #[test]
    fn what_is_quoted_is_read_as_it_was() {
        for name in
            ["movie.mp4", "my movie.mp4", "$(reboot)", "a'b\"c\\d`e", "~x", "a:b=c", "*?[x]{y}", "ü#&;|<>"]
        {
            for (open, quote) in [(Quote::None, ""), (Quote::Single, "'"), (Quote::Double, "\"")] {
                let word = Typed { open, ..Typed::default() };
                let quoted = word.quoted(name).expect("it can be written");
                let whole = format!("{quote}{quoted}{quote}");
                assert_eq!(Typed::of(&whole).text, name, "{whole}");
                assert_eq!(shell_words::split(&whole), Ok(vec![name.to_owned()]), "{whole}");
            }
        }
        assert_eq!(Typed { open: Quote::Double, ..Typed::default() }.quoted("a!b"), None);
        assert_eq!(Typed::of("~/x").quoted("~/xy z"), Some(r"~/xy\ z".to_owned()));
    }

    #[test]
    fn flags_with_their_value_are_one_word() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, index, joined, new_index, kept) in [
            ("peer --home = alice download g", 5, "peer --home=alice download g", 3, ""),
            ("peer --home = al", 3, "peer --home=al", 1, "--home="),
            ("peer --home =", 2, "peer --home=", 1, "--home="),
            ("peer download a = b", 4, "peer download a = b", 4, ""),
        ] {
            let found = join_at_equals(words(line), index);
            assert_eq!(found, (words(joined), new_index, kept.to_owned()), "{line}");
        }
    }
}
