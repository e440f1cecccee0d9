//! Writes the section of docs/benchmarks.md that contains the figures of a full run.

use std::fs;

use anyhow::{Context as _, Result};

use testbed::cmd;

const PAGE: &str = "docs/benchmarks.md";
/// The lines that enclose the section.
const BEGIN: &str = "<!-- bench: written by `cargo xtask bench` -->\n";
const END: &str = "<!-- bench: end -->\n";

/// Replaces the section by `text`.
pub(super) fn write(text: &str) -> Result<()> {
    let path = cmd::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("{PAGE} can't be read"))?;
    let page =
        replaced(&page, text.trim()).with_context(|| format!("{PAGE} has no section for the bench"))?;
    fs::write(&path, page)?;
    println!("{PAGE} has these figures now");
    Ok(())
}

/// Returns the page with another section, or `None` if the marks are missing.
fn replaced(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}\n\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replaced};

    #[test]
    fn only_the_section_is_replaced() {
        let page = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(replaced(&page, "new"), Some(format!("a\n{BEGIN}\nnew\n\n{END}b\n")));
        assert_eq!(replaced("a\n", "new"), None);
        assert_eq!(replaced(&format!("{END}{BEGIN}"), "new"), None);
    }

    #[test]
    fn the_page_has_the_section() {
        let page = include_str!("../../../docs/benchmarks.md");
        assert!(replaced(page, "new").is_some());
    }
}
