//! What workers write to their standard streams, line by line.
//!
//! The one thing to know: a line is bytes up to a newline, whatever they are; what is longer than
//! [`LINE_BYTES_MAX`] comes in pieces, and what was written without a newline comes when the stream
//! ends. A reader that falls behind holds up the workers that write, not memory. This file must not
//! know where lines go.

use nix::fcntl::OFlag;
use std::os::fd::OwnedFd;
use store_shm::process::ProcessError;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Bytes of a line that come in one piece.
pub const LINE_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;
/// A buffer larger than this is given back when its line is done.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a worker wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The worker.
    pub worker: u64,
    /// Its process.
    pub pid: u32,
    /// Where it was written to.
    pub stream: Stream,
    /// The line without its newline; any bytes.
    pub bytes: Vec<u8>,
    /// Whether a newline ended it. If not, it was too long and goes on, or was the last.
    pub is_whole: bool,
}

impl Line {
    /// What all lines of one stream have in common.
    pub(crate) fn of(worker: u64, pid: u32, stream: Stream) -> Line {
        Line { worker, pid, stream, bytes: Vec::new(), is_whole: true }
    }

    /// As a driver prints it: `(name pid=123) text`. Bytes that are no text are replaced.
    pub fn labelled(&self, name: &str) -> String {
        format!("({name} pid={}) {}", self.pid, String::from_utf8_lossy(&self.bytes))
    }
}

/// A pipe for a worker's stream: the end to read, which does not block, and the end to write.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), ProcessError> {
    let system = |call| move |source| ProcessError::System { call, source };
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(system("pipe2"))?;
    let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&read, flags).map_err(system("fcntl F_SETFL"))?;
    Ok((read, write))
}

/// Reads a pipe to its end and passes on its lines, which look like `like`.
pub(crate) async fn forward(pipe: OwnedFd, like: Line, lines: mpsc::Sender<Line>) {
    let mut pipe = match pipe::Receiver::from_owned_fd(pipe) {
        Ok(pipe) => pipe,
        Err(error) => return tracing::warn!(%error, pid = like.pid, "a worker's output is lost"),
    };
    let (mut bytes, mut splitter) = (vec![0; READ_BYTES], Splitter::default());
    loop {
        let count = pipe.read(&mut bytes).await.unwrap_or(0);
        let mut found = Vec::new();
        match count {
            0 => found.extend(splitter.finish()),
            count => splitter.split(&bytes[..count], |bytes, is_whole| found.push((bytes, is_whole))),
        }
        for (bytes, is_whole) in found {
            // Nobody listens: what is written is read all the same, so that no worker blocks.
            let _ = lines.send(Line { bytes, is_whole, ..like.clone() }).await;
        }
        if count == 0 {
            return;
        }
    }
}

/// Makes lines of pieces.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What came after the last newline.
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes in what was read; `found` gets each line that this completes, and whether a newline
    /// ended it.
    pub fn split(&mut self, mut bytes: &[u8], mut found: impl FnMut(Vec<u8>, bool)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.add(&bytes[..end], &mut found);
            found(self.take(), true);
            bytes = &bytes[end + 1..];
        }
        self.add(bytes, &mut found);
    }

    /// What was written without a newline at the end.
    pub fn finish(&mut self) -> Option<(Vec<u8>, bool)> {
        (!self.rest.is_empty()).then(|| (self.take(), false))
    }

    fn add(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Vec<u8>, bool)) {
        while self.rest.len() + bytes.len() > LINE_BYTES_MAX {
            let (now, later) = bytes.split_at(LINE_BYTES_MAX - self.rest.len());
            self.rest.extend_from_slice(now);
            found(self.take(), false);
            bytes = later;
        }
        self.rest.extend_from_slice(bytes);
    }

    /// The line, cut to size; a large buffer does not stay.
    fn take(&mut self) -> Vec<u8> {
        let line = self.rest.as_slice().to_vec();
        self.rest.clear();
        self.rest.shrink_to(KEPT_BYTES_MAX);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[(&[u8], bool)]) {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        pieces.iter().for_each(|piece| splitter.split(piece, |line, is_whole| found.push((line, is_whole))));
        found.extend(splitter.finish());
        let expected: Vec<_> = expected.iter().map(|&(line, is_whole)| (line.to_vec(), is_whole)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        check(&[b"a\nb\n"], &[(b"a", true), (b"b", true)]);
        check(&[b"a", b"b\nc", b"\n"], &[(b"ab", true), (b"c", true)]);
        check(&[b"\n\n"], &[(b"", true), (b"", true)]);
        check(&[b"a\nlast"], &[(b"a", true), (b"last", false)]);
        check(&[b""], &[]);
        check(&[b"\xff\x00\xfe\n"], &[(b"\xff\x00\xfe", true)]);
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_pieces() {
        let long = vec![b'x'; LINE_BYTES_MAX + 2];
        check(&[&long, b"\nnext\n"], &[(&long[..LINE_BYTES_MAX], false), (b"xx", true), (b"next", true)]);
        check(&[&long[..LINE_BYTES_MAX], b"\n"], &[(&long[..LINE_BYTES_MAX], true)]);
    }

    #[test]
    fn a_line_is_labelled_with_its_worker() {
        let line = Line { bytes: b"a\xffb".to_vec(), ..Line::of(1, 123, Stream::Stdout) };
        assert_eq!(line.labelled("f"), "(f pid=123) a\u{fffd}b");
    }
}
