//! What is redrawn in place while something runs; seen on a terminal only.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::Style;

impl Style {
    /// A bar of bytes on standard error, if that is a terminal; else one that is not seen.
    pub(in crate::cli) fn bar(self, what: &'static str, bytes: u64) -> ProgressBar {
        let seen = io::stderr().is_terminal() && !self.json && !self.quiet;
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = "{prefix} [{bar:30}] {percent}%  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  eta {eta}";
        with_template(bar, template).with_prefix(what)
    }

    /// A view on standard error, for what goes on beside a result.
    pub(in crate::cli) fn live(self) -> Live {
        let seen = io::stderr().is_terminal() && !self.json && !self.quiet;
        Live::new(seen.then(ProgressDrawTarget::stderr))
    }

    /// A view on standard output, for what is the result itself; `None` where that is not a terminal.
    pub(in crate::cli) fn live_result(self) -> Option<Live> {
        let seen = io::stdout().is_terminal() && !self.json;
        seen.then(|| Live::new(Some(ProgressDrawTarget::stdout())))
    }
}

/// Lines that are redrawn in place. The last ones stay when nobody ends it.
pub(in crate::cli) struct Live(ProgressBar);

impl Live {
    fn new(target: Option<ProgressDrawTarget>) -> Self {
        let bar = ProgressBar::with_draw_target(None, target.unwrap_or_else(ProgressDrawTarget::hidden));
        Self(with_template(bar, "{msg}").with_finish(ProgressFinish::Abandon))
    }

    /// Shows these lines in place of those before.
    pub(in crate::cli) fn show(&self, text: String) {
        self.0.set_message(text);
    }

    /// Clears the lines away.
    pub(in crate::cli) fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn with_template(bar: ProgressBar, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("=> "))
}
