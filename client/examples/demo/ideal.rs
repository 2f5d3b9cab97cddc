//! What the machine could do: plain processes, one per core, each on its share, nobody in between.
//!
//! The one thing to know: each share is this program again, with one environment variable that says
//! which share. They list the corpus, say so, and start together when the parent says so; then the
//! whole job on their share (own duplicates only, own file: nothing is merged), and then the map
//! operators on documents in memory. This file must not use the raylet.
//!
//! ```text
//! share -> parent   {"done": 0}       listed; then after each of the works
//! parent -> share   a line            go
//! ```

use super::Arguments;
use super::corpus::{Corpus, Portion};
use super::output::Findings;
use super::plain;
use raylet_client::prelude::Result;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Which share a process has: `number/count`.
const SHARE: &str = "RAYLET_DEMO_SHARE";

/// A share did not do its work.
#[derive(Debug, thiserror::Error)]
#[error("share {number} of {count} ended before its work was done: {status}")]
pub(crate) struct ShareEnded {
    number: usize,
    count: usize,
    status: std::process::ExitStatus,
}

/// What plain processes took.
pub(crate) struct Ideal {
    /// How many they were.
    pub(crate) processes: usize,
    /// For the map operators.
    pub(crate) map_seconds: f64,
    /// For the whole job.
    pub(crate) whole_seconds: f64,
}

/// The share that this process has, if it is one.
pub(crate) fn share() -> Option<(usize, usize)> {
    let share = std::env::var(SHARE).ok()?;
    let (number, count) = share.split_once('/')?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

/// Starts the shares and times them.
pub(crate) fn measure(processes: usize) -> Result<Ideal> {
    let mut shares = (0..processes).map(|number| Share::start(number, processes)).collect::<Result<Vec<_>>>()?;
    shares.iter_mut().try_for_each(Share::done)?;
    let whole_seconds = together(&mut shares)?;
    // The documents are read, which is not the map operators' work.
    together(&mut shares)?;
    let map_seconds = together(&mut shares)?;
    Ok(Ideal { processes, map_seconds, whole_seconds })
}

/// Lets all do their next work; the time until the last is done.
fn together(shares: &mut [Share]) -> Result<f64> {
    let started = Instant::now();
    shares.iter_mut().try_for_each(Share::go)?;
    shares.iter_mut().try_for_each(Share::done)?;
    Ok(started.elapsed().as_secs_f64())
}

/// One of the processes; ends with this value.
struct Share {
    number: usize,
    count: usize,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Share {
    fn start(number: usize, count: usize) -> Result<Share> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(SHARE, format!("{number}/{count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().expect("it was piped");
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        Ok(Share { number, count, child, input, output })
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"go\n")?)
    }

    fn done(&mut self) -> Result<()> {
        let mut line = String::new();
        while !line.contains("{\"done\"") {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                let status = self.child.wait()?;
                return Err(ShareEnded { number: self.number, count: self.count, status }.into());
            }
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // One that is done has ended, or will on its own; both refusals say so.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The work of one share.
pub(crate) fn run_share(arguments: &Arguments, corpus: &Corpus, number: usize, count: usize) -> Result<()> {
    let portions: Vec<&Portion> = corpus.portions.iter().skip(number).step_by(count).collect();
    let path = arguments.output.join(format!("share-{number}.arrow"));
    let file = File::create(&path)?;
    let (mut turns, mut documents) = (std::io::stdin().lines(), Vec::new());
    let mut wait = || -> Result<bool> {
        println!("{{\"done\": 0}}");
        std::io::stdout().flush()?;
        Ok(turns.next().is_some())
    };
    if wait()? {
        plain::run(corpus, portions.iter().copied(), BufWriter::new(file))?;
    }
    if wait()? {
        std::fs::remove_file(&path)?;
        documents = portions.iter().map(|portion| Ok(portion.read()?.documents)).collect::<Result<Vec<_>>>()?;
    }
    if wait()? {
        for batch in documents.drain(..) {
            plain::map(&batch, &mut Findings::default())?;
        }
    }
    wait()?;
    Ok(())
}
