//! What workers wrote, at the driver's standard streams.
//!
//! The one thing to know: each line says who wrote it, as `(name pid=123) text`. It is written by the
//! thread that reads the line, so a driver whose output is stopped hears nothing else either; a binding may
//! take the lines over ([`Printer`]). This file must not interpret lines.

use raylet_api::work::{LogLine, LogLines, Notice};
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

/// Who prints: whoever took that over, else this file.
#[derive(Clone, Default)]
pub struct Printer(Option<Arc<Print>>);

type Print = dyn Fn(Printed<'_>) + Send + Sync;

/// Something to print.
#[derive(Clone, Copy, Debug)]
pub enum Printed<'a> {
    /// Lines that workers wrote.
    Lines(&'a LogLines),
    /// What the raylet has the user know.
    Notice(&'a str),
}

impl Printer {
    /// Prints by `print`, which must not wait: it runs on the thread that hears the raylet.
    pub fn of(print: impl Fn(Printed<'_>) + Send + Sync + 'static) -> Printer {
        Printer(Some(Arc::new(print)))
    }

    pub(super) fn lines(&self, said: &LogLines) {
        match &self.0 {
            Some(print) => print(Printed::Lines(said)),
            None => lines(said),
        }
    }

    pub(super) fn notice(&self, said: &Notice) {
        match &self.0 {
            Some(print) => print(Printed::Notice(&said.text)),
            None => notice(said),
        }
    }
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Printer").field(&self.0.is_some()).finish()
    }
}

/// Prints lines of workers. What cannot be written is nobody's to hear of.
fn lines(lines: &LogLines) {
    if lines.dropped_count > 0 {
        let _ = writeln!(io::stderr(), "raylet: {} lines of workers were dropped", lines.dropped_count);
    }
    lines.lines.iter().for_each(line);
}

fn line(line: &LogLine) {
    let text = tagged(line);
    let _ = match line.is_error {
        true => io::stderr().write_all(text.as_bytes()),
        false => io::stdout().write_all(text.as_bytes()),
    };
}

fn tagged(line: &LogLine) -> String {
    let name = if line.name.is_empty() { "worker" } else { &line.name };
    format!("({name} pid={}) {}\n", line.pid, line.text)
}

/// Prints what the raylet has the user know.
fn notice(notice: &Notice) {
    let _ = writeln!(io::stderr(), "raylet: {}", notice.text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_wrote_it() {
        let line = LogLine { name: "f".to_owned(), pid: 7, is_error: false, text: "hello".to_owned() };
        assert_eq!(tagged(&line), "(f pid=7) hello\n");
        assert_eq!(tagged(&LogLine { name: String::new(), ..line }), "(worker pid=7) hello\n");
    }
}
