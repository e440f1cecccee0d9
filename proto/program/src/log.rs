//! Log output in which each entry stays one line and cannot control a terminal, whatever it contains.

use std::io::{self, Write};

use domain::visible::{escape, escape_json};

use crate::settings::LogFormat;

/// Writes log lines with each [hidden character](domain::visible) escaped. Each write must be one whole line, as
/// `tracing-subscriber` writes them.
pub struct Escaping<W> {
    to: W,
    format: LogFormat,
}

impl<W> Escaping<W> {
    /// Writes to `to`, with the escapes of this format.
    pub fn new(to: W, format: LogFormat) -> Self {
        Self { to, format }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        let escaped = match self.format {
            LogFormat::Text => escape(line),
            LogFormat::Json => escape_json(line),
        };
        self.to.write_all(format!("{escaped}{end}").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: LogFormat, line: &str) -> String {
        let mut out = Vec::new();
        Escaping::new(&mut out, format).write_all(line.as_bytes()).expect("memory has room");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_line_stays_one_line_of_visible_characters() {
        let line = "INFO refused name=a\u{3164}\u{202e}\nINFO forged\u{1b}[31m größe\n";
        let text = "INFO refused name=a\\u{3164}\\u{202e}\\nINFO forged\\u{1b}[31m größe\n";
        assert_eq!(written(LogFormat::Text, line), text);
        let json = written(LogFormat::Json, "{\"name\":\"a\u{3164}\u{e0041}\"}\n");
        assert_eq!(json, "{\"name\":\"a\\u3164\\udb40\\udc41\"}\n");
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["name"], "a\u{3164}\u{e0041}");
    }
}
