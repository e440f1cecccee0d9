//! Output that is redrawn in place while something runs. It is shown only on a terminal, and each line fits
//! it.

use std::{
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Style, escape, fit};
use crate::units;

/// The time between two drawings of a bar.
const PAUSE: Duration = Duration::from_millis(100);

/// The terminal that a view is drawn on.
#[derive(Clone, Copy, Debug)]
enum Terminal {
    Stdout,
    Stderr,
}

impl Terminal {
    fn size(self) -> (usize, usize) {
        match self {
            Self::Stdout => fit::terminal_size(io::stdout().as_fd()),
            Self::Stderr => fit::terminal_size(io::stderr().as_fd()),
        }
    }

    fn has_colours(self) -> bool {
        match self {
            Self::Stdout => fit::has_colours(&io::stdout()),
            Self::Stderr => fit::has_colours(&io::stderr()),
        }
    }

    /// A view that can't be drawn can't be reported either.
    fn write(self, text: &str) {
        let write = |out: &mut dyn Write| out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let _ = match self {
            Self::Stdout => write(&mut io::stdout().lock()),
            Self::Stderr => write(&mut io::stderr().lock()),
        };
    }
}

impl Style {
    /// A progress bar of bytes on standard error. It is hidden if that is not a terminal.
    pub(in crate::cli) fn bar(self, what: impl Into<String>, bytes: u64) -> Bar {
        let progress = Progress { done: 0, size: bytes, drawn: None, started: Instant::now() };
        Bar { what: what.into(), live: Arc::new(self.live()), progress: Arc::new(Mutex::new(progress)) }
    }

    /// A live view on standard error, for progress beside a result.
    pub(in crate::cli) fn live(self) -> Live {
        let seen = io::stderr().is_terminal() && !self.json && !self.quiet;
        Live::new(seen.then_some(Terminal::Stderr))
    }

    /// A live view on standard output, for a result that changes. Returns `None` where that is not a
    /// terminal.
    pub(in crate::cli) fn live_result(self) -> Option<Live> {
        let seen = io::stdout().is_terminal() && !self.json;
        seen.then(|| Live::new(Some(Terminal::Stdout)))
    }
}

/// Lines that are redrawn in place. The last ones stay on the screen unless [`Live::end`] clears them.
pub(in crate::cli) struct Live {
    terminal: Option<Terminal>,
    colours: bool,
    /// The columns of each line that is on the screen.
    drawn: Mutex<Vec<usize>>,
    resized: tokio::sync::Mutex<Option<Signal>>,
}

impl Live {
    fn new(terminal: Option<Terminal>) -> Self {
        let resized = terminal.and_then(|_| signal(SignalKind::window_change()).ok());
        Self {
            terminal,
            colours: terminal.is_some_and(Terminal::has_colours),
            drawn: Mutex::default(),
            resized: tokio::sync::Mutex::new(resized),
        }
    }

    /// Replaces the lines by the text that `render` makes for the terminal's number of columns.
    pub(in crate::cli) fn show(&self, render: impl FnOnce(usize) -> String) {
        let Some(terminal) = self.terminal else { return };
        let (width, rows) = terminal.size();
        let text = escape(&render(width));
        // The cursor stands below the last line.
        let lines: Vec<String> =
            text.lines().take(rows.saturating_sub(1)).map(|l| fit::clip(l, width)).collect();
        let mut drawn = self.drawn.lock();
        let mut out = back_to_start(&drawn, width);
        for line in &lines {
            out += &if self.colours { fit::paint(line) } else { line.clone() };
            out.push('\n');
        }
        *drawn = lines.iter().map(|line| fit::columns(line)).collect();
        terminal.write(&out);
    }

    /// Returns when the terminal's size has changed.
    pub(in crate::cli) async fn resized(&self) {
        if let Some(signal) = &mut *self.resized.lock().await {
            signal.recv().await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Clears the lines.
    pub(in crate::cli) fn end(&self) {
        if let Some(terminal) = self.terminal {
            let drawn = std::mem::take(&mut *self.drawn.lock());
            terminal.write(&back_to_start(&drawn, terminal.size().0));
        }
    }
}

/// Moves the cursor to the start of the lines that were drawn, and clears them. A terminal that became
/// narrower has wrapped the long ones.
fn back_to_start(drawn: &[usize], width: usize) -> String {
    let rows: usize = drawn.iter().map(|columns| columns.div_ceil(width.max(1)).max(1)).sum();
    if rows == 0 { String::new() } else { format!("\x1b[{rows}A\r\x1b[J") }
}

struct Progress {
    done: u64,
    size: u64,
    drawn: Option<Instant>,
    started: Instant,
}

/// A bar that shows how many bytes are done. Clones are the same bar.
#[derive(Clone)]
pub(in crate::cli) struct Bar {
    what: String,
    live: Arc<Live>,
    progress: Arc<Mutex<Progress>>,
}

impl Bar {
    /// Sets how many bytes are done, of how many.
    pub(in crate::cli) fn set(&self, done: u64, size: u64) {
        let mut progress = self.progress.lock();
        (progress.done, progress.size) = (done, size);
        if progress.drawn.is_none_or(|at| at.elapsed() >= PAUSE) {
            progress.drawn = Some(Instant::now());
            let rate = done as f64 / progress.started.elapsed().as_secs_f64().max(0.001);
            self.live.show(|width| bar_text(&self.what, done, size, rate as u64, width));
        }
    }

    /// Removes the bar from the screen.
    pub(in crate::cli) fn clear(&self) {
        self.live.end();
    }
}

/// The bar as one line of at most `width` columns.
fn bar_text(what: &str, done: u64, size: u64, rate: u64, width: usize) -> String {
    const LONGEST: usize = 30;
    let percent = (u128::from(done) * 100).checked_div(u128::from(size)).unwrap_or(100);
    let eta = size.saturating_sub(done).checked_div(rate).map(units::seconds).unwrap_or_default();
    let bytes = format!("  {} of {}  {}  eta {eta}", units::size(done), units::size(size), units::rate(rate));
    let head = format!("{what} {percent}%");
    let room = width.saturating_sub(fit::columns(&head) + 3);
    let bytes = if fit::columns(&bytes) + 8 <= room { bytes } else { String::new() };
    let length = room.saturating_sub(fit::columns(&bytes)).min(LONGEST);
    if length < 5 {
        return head;
    }
    let full = usize::try_from(percent.min(100) * length as u128 / 100).unwrap_or(length);
    format!("{what} [{}{}] {percent}%{bytes}", "=".repeat(full), " ".repeat(length - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fits_every_terminal() {
        for width in 20..=200 {
            let text = bar_text("checking", 1_000_000, 3_000_000, 100_000, width);
            assert!(fit::columns(&text) <= width && text.contains("33%"), "{width}: {text:?}");
        }
        assert_eq!(
            bar_text("hashing", 1 << 20, 2 << 20, 1 << 20, 100),
            "hashing [===============               ] 50%  1.0 MiB of 2.0 MiB  1.0 MiB/s  eta 1s"
        );
        assert_eq!(bar_text("hashing", 0, 0, 0, 20), "hashing [=====] 100%");
        assert_eq!(bar_text("hashing", 0, 0, 0, 19), "hashing 100%");
    }

    #[test]
    fn what_was_drawn_is_cleared_after_a_resize_too() {
        assert_eq!(back_to_start(&[], 80), "");
        assert_eq!(back_to_start(&[80, 30], 80), "\x1b[2A\r\x1b[J");
        // The terminal wraps the line of 80 columns to two rows.
        assert_eq!(back_to_start(&[80, 30], 50), "\x1b[3A\r\x1b[J");
        assert_eq!(back_to_start(&[0, 20], 200), "\x1b[2A\r\x1b[J");
    }
}
