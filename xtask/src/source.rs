//! Blanks out the comments and literals of Rust source, so that a rule about code sees only code.

/// Replaces comments, strings and character literals by spaces. Every line keeps its number and its length in
/// characters.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let end = match c {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            '"' => string_end(&chars, at + 1),
            'r' | 'b' | 'c' if !at.checked_sub(1).is_some_and(|before| is_word(chars[before])) => {
                prefixed_string_end(&chars, at).unwrap_or(at)
            }
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(c);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|&at| chars[at] == '\n').unwrap_or(chars.len())
}

/// Returns the end of a block comment. Block comments nest.
fn comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

/// Returns the end of a string whose opening quote is just before `from`.
fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// Returns the end of `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#` and the like, if one starts at `from`.
fn prefixed_string_end(chars: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    let mut raw = false;
    while let Some('r' | 'b' | 'c') = chars.get(at) {
        raw |= chars[at] == 'r';
        at += 1;
        if at - from > 2 {
            return None;
        }
    }
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') || (hashes > 0 && !raw) {
        return None;
    }
    if !raw {
        return Some(string_end(chars, at + 1));
    }
    let close = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    Some((at + 1..chars.len()).find(|&at| close(at)).map_or(chars.len(), |at| at + 1 + hashes))
}

/// Returns the end of a character literal, or `None` for a lifetime.
fn char_end(chars: &[char], from: usize) -> Option<usize> {
    if chars.get(from + 1) == Some(&'\\') {
        return (from + 3..chars.len().min(from + 14)).find(|&at| chars[at] == '\'').map(|at| at + 1);
    }
    (chars.get(from + 2) == Some(&'\'')).then_some(from + 3)
}

#[cfg(test)]
mod tests {
    use super::code_only;

    /// Checks that `code` is what remains of `source`, with each run of spaces written as one.
    fn check(source: &str, code: &str) {
        let left = code_only(source);
        assert_eq!(
            left.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
            code,
            "of {source:?}"
        );
        assert_eq!(left.chars().count(), source.chars().count());
        assert_eq!(left.lines().count(), source.lines().count());
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        check("a // tokio\nb", "a \nb");
        check("a /* x /* y */ z */ b", "a b");
        check("f(\"tokio \\\" x\") + 1", "f( ) + 1");
        check("f(r#\"a \" b\"#) + b'x' + b\"y\"", "f( ) + b +");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("let c = '\"'; tokio", "let c = ; tokio");
        check("'\\'' x '\\u{1F600}' y", "x y");
    }

    #[test]
    fn words_that_end_in_a_prefix_are_no_strings() {
        check("for \"x\"", "for");
        check("var\"x\"", "var");
    }
}
