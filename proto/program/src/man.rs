//! Manual pages: one page for all verbs of a program, with its exit codes, environment, files and examples.

use std::io::{self, Write};

use clap::{Arg, Command};
use clap_mangen::Man;

/// What a manual page says besides the verbs and their flags.
#[derive(Clone, Copy, Debug)]
pub struct Extra {
    /// Each exit code, and what it means.
    pub exit_status: &'static [(&'static str, &'static str)],
    /// Variables that are no flag's, and what they do. Those of the flags are taken from their help texts.
    pub environment: &'static [(&'static str, &'static str)],
    /// Each file, and what it holds.
    pub files: &'static [(&'static str, &'static str)],
    /// Commands, one a line.
    pub examples: &'static str,
}

/// Writes the page in the roff format of `man`. The global options are described once.
///
/// # Errors
/// Fails only if `out` does.
pub fn page(mut command: Command, extra: Extra, out: &mut dyn Write) -> io::Result<()> {
    command.build();
    let mut variables = variables(&command);
    let head = Man::new(command.clone());
    head.render_title(out)?;
    head.render_name_section(out)?;
    head.render_synopsis_section(out)?;
    head.render_description_section(out)?;
    head.render_options_section(out)?;
    for verb in verbs(&command) {
        let repeated =
            |arg: &Arg| arg.is_global_set() || ["help", "version"].contains(&arg.get_id().as_str());
        let hide = |arg: Arg| if repeated(&arg) { arg.hide(true) } else { arg };
        let verb = verb.clone().mut_args(hide);
        let title = verb.get_bin_name().unwrap_or(verb.get_name()).to_uppercase();
        let man = Man::new(verb);
        writeln!(out, ".SH \"{}\"", plain(&title))?;
        man.render_synopsis_section(out)?;
        man.render_description_section(out)?;
        man.render_options_section(out)?;
        man.render_extra_section(out)?;
    }
    variables.extend(extra.environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    variables.sort();
    variables.dedup_by(|later, first| later.0 == first.0);
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(term, text)| ((*term).to_owned(), (*text).to_owned())).collect()
    };
    terms(out, "EXIT STATUS", &pairs(extra.exit_status))?;
    terms(out, "ENVIRONMENT", &variables)?;
    terms(out, "FILES", &pairs(extra.files))?;
    writeln!(out, ".SH EXAMPLES\n.nf\n{}\n.fi", plain(extra.examples.trim_end()))
}

/// The verbs that a user can type, those of two words included.
fn verbs(command: &Command) -> Vec<&Command> {
    let shown = |verb: &&Command| !verb.is_hide_set() && verb.get_name() != "help";
    let with_own = |verb| std::iter::once(verb).chain(verbs(verb));
    command.get_subcommands().filter(shown).flat_map(with_own).collect()
}

/// The variables that the help texts of all flags name, as `[env: NAME]`, with those texts.
fn variables(command: &Command) -> Vec<(String, String)> {
    let all = std::iter::once(command).chain(verbs(command)).flat_map(Command::get_arguments);
    let help = |arg: &Arg| arg.get_help().map(ToString::to_string).unwrap_or_default();
    all.filter_map(|arg| {
        let text = help(arg);
        let (before, rest) = text.split_once("[env: ")?;
        let (name, _) = rest.split_once(']')?;
        Some((name.to_owned(), before.trim_end().to_owned()))
    })
    .collect()
}

fn terms(out: &mut dyn Write, title: &str, terms: &[(String, String)]) -> io::Result<()> {
    writeln!(out, ".SH \"{title}\"")?;
    terms.iter().try_for_each(|(term, text)| writeln!(out, ".TP\n\\fB{}\\fR\n{}", plain(term), plain(text)))
}

/// Text that roff prints as it is.
fn plain(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_sections_and_the_global_options_once() {
        let home = Arg::new("home").long("home").global(true).help("The home [env: X_HOME] [default: none]");
        let up = Arg::new("up").long("up").help("The limit");
        let command = Command::new("x")
            .arg(home)
            .subcommand(Command::new("limit").about("Sets limits").arg(up))
            .subcommand(
                Command::new("config").about("Settings").subcommand(Command::new("show").about("All")),
            );
        let extra = Extra {
            exit_status: &[("0", "done")],
            environment: &[("NO_COLOR", "no colours")],
            files: &[(".x", "a file")],
            examples: "x limit --up 5\n.x",
        };
        let mut page = Vec::new();
        super::page(command, extra, &mut page).expect("memory");
        let page = String::from_utf8(page).expect("text");
        for section in
            ["\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "EXAMPLES", "\"X LIMIT\"", "\"X CONFIG SHOW\""]
        {
            assert_eq!(
                page.matches(&format!(".SH {section}")).count()
                    + page.matches(&format!(".SH \"{section}\"")).count(),
                1,
                "{section}: {page}"
            );
        }
        assert_eq!(page.matches("The home").count(), 2, "among the options, and in the environment: {page}");
        assert!(page.contains("\\fBX_HOME\\fR\nThe home\n") && page.contains("\n\\&.x\n"), "{page}");
    }
}
