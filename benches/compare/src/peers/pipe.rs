//! A byte there and a byte back through two pipes: what processes had before shared memory.
//!
//! The one thing to know: the other end is this executable with the pipes as its standard streams;
//! it ends when the first of them does, or with the harness. One round trip a millisecond, each end with a core.

use std::io::{ErrorKind, Read, Write, stdin, stdout};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use crate::child::{HARNESS_CORE, OTHER_CORE, OwnedChild, end_with_parent, pin_to_core, role_command};
use crate::error::BenchError;
use crate::pace::{CALLS, at_pace};
use crate::plan::Made;
use crate::run::Bench;

/// One round trip a millisecond.
pub fn paced(bench: &Bench) -> Made {
    let mut pair = Pair::start()?;
    let count = bench.effort.count(CALLS);
    Ok(Some(Box::new(move || {
        pin_to_core(HARNESS_CORE);
        at_pace(count, || pair.trip())
    })))
}

struct Pair {
    to: ChildStdin,
    from: ChildStdout,
    _other: OwnedChild,
}

impl Pair {
    fn start() -> Result<Self, BenchError> {
        let core = OTHER_CORE.to_string();
        let mut command = role_command(&["pipe-echo", "--core", &core])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut other = command.spawn().map_err(BenchError::system("another process of ours"))?;
        let to = other.stdin.take().expect("its input was asked to be a pipe");
        let from = other.stdout.take().expect("its output was asked to be a pipe");
        Ok(Self { to, from, _other: OwnedChild::adopt(other) })
    }

    fn trip(&mut self) -> Result<f64, BenchError> {
        let mut heard = [0];
        let start = Instant::now();
        self.to.write_all(&[1]).map_err(BenchError::system("a byte into a pipe"))?;
        self.from.read_exact(&mut heard).map_err(BenchError::system("a byte out of a pipe"))?;
        Ok(start.elapsed().as_nanos() as f64)
    }
}

/// The other end.
pub fn echo(core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    let (mut from, mut to) = (stdin().lock(), stdout().lock());
    let mut byte = [0];
    loop {
        match from.read_exact(&mut byte) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read.map_err(BenchError::system("a byte out of a pipe"))?,
        }
        // A line buffer would hold it back.
        to.write_all(&byte).and_then(|()| to.flush()).map_err(BenchError::system("a byte into a pipe"))?;
    }
}
