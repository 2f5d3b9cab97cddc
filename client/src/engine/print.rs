//! What workers wrote, at the driver's standard streams.
//!
//! The one thing to know: each line says who wrote it, as `(name pid=123) text`. It is written by the
//! thread that reads the line, so a driver whose output is stopped hears nothing else either. This file
//! must not interpret lines.

use raylet_api::work::{LogLine, LogLines, Notice};
use std::io::{self, Write};

/// Prints lines of workers. What cannot be written is nobody's to hear of.
pub(super) fn lines(lines: &LogLines) {
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
pub(super) fn notice(notice: &Notice) {
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
