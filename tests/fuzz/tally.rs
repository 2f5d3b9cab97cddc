//! What came of the inputs: counts by outcome, and the longest and largest.
//!
//! The one thing to know: an error counts under the names of its variants, from the outermost to
//! the innermost source, so the list shows how deep the inputs got. It must not keep inputs.

use nix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::{self, Display, Formatter, Write};
use std::time::{Duration, Instant};

/// Sources of an error that are named, itself included.
const NAMES_MAX: usize = 4;

/// How far an input got.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The very first look refused it.
    Refused,
    /// It was taken in hand, and refused later.
    Entered,
    /// It was accepted as a whole.
    Accepted,
}

/// Counts of one run.
pub(crate) struct Tally {
    inputs: u64,
    outcomes: HashMap<String, u64>,
    entered: u64,
    accepted: u64,
    longest: (Duration, u64),
    longest_cpu: (Duration, u64),
    /// Peaks before the first input, in KiB: resident, address space.
    before_kib: (u64, u64),
    name: String,
}

/// A peak of this process, in KiB.
fn peak_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
}

fn peaks_kib() -> (u64, u64) {
    (peak_kib("VmHWM"), peak_kib("VmPeak"))
}

/// Processor time of this thread: a busy machine does not lengthen it.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Takes the name at the front of what `Debug` writes, and stops it there.
struct FrontName<'a>(&'a mut String);

impl Write for FrontName<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        self.0.push_str(&text[..end]);
        if end == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            inputs: 0,
            outcomes: HashMap::new(),
            entered: 0,
            accepted: 0,
            longest: (Duration::ZERO, 0),
            longest_cpu: (Duration::ZERO, 0),
            before_kib: peaks_kib(),
            name: String::new(),
        }
    }

    /// Runs one input and notes how long it took.
    pub(crate) fn timed(&mut self, number: u64, input: impl FnOnce(&mut Tally)) {
        let (start, start_cpu) = (Instant::now(), thread_time());
        input(self);
        let (took, cpu) = (start.elapsed(), thread_time().saturating_sub(start_cpu));
        self.longest = self.longest.max((took, number));
        self.longest_cpu = self.longest_cpu.max((cpu, number));
        self.inputs += 1;
    }

    /// How far the input got as a whole: once for each input.
    pub(crate) fn depth(&mut self, depth: Depth) {
        self.entered += u64::from(depth != Depth::Refused);
        self.accepted += u64::from(depth == Depth::Accepted);
    }

    /// Counts what happened under this name.
    pub(crate) fn outcome(&mut self, name: &str) {
        match self.outcomes.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.outcomes.insert(name.to_owned(), 1)),
        }
    }

    /// Counts an error by its kind, after the name of what failed, if anything.
    pub(crate) fn error(&mut self, what: &str, error: &dyn Error) {
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        name.push_str(what);
        let mut error = Some(error);
        for _ in 0..NAMES_MAX {
            let Some(current) = error else { break };
            name.push_str(if name.is_empty() { "" } else { " > " });
            // It fails where the name ends.
            let _ = write!(FrontName(&mut name), "{current:?}");
            error = current.source();
        }
        self.outcome(&name);
        self.name = name;
    }

    pub(crate) fn longest_cpu(&self) -> Duration {
        self.longest_cpu.0
    }

    #[cfg(test)]
    pub(crate) fn accepted_share(&self) -> f64 {
        self.accepted as f64 / self.inputs as f64
    }

    #[cfg(test)]
    pub(crate) fn outcomes(&self) -> BTreeMap<String, u64> {
        self.outcomes.clone().into_iter().collect()
    }

    fn share(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.inputs.max(1) as f64
    }
}

/// Rows of a table.
impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let (resident_kib, space_kib) = peaks_kib();
        writeln!(f, "| inputs | {} |", self.inputs)?;
        writeln!(f, "| past the first check | {} ({:.2} %) |", self.entered, self.share(self.entered))?;
        writeln!(f, "| accepted | {} ({:.2} %) |", self.accepted, self.share(self.accepted))?;
        writeln!(
            f,
            "| longest, computing | {:.3} ms (input {}) |",
            milliseconds(self.longest_cpu.0),
            self.longest_cpu.1
        )?;
        writeln!(f, "| longest, by the clock | {:.3} ms (input {}) |", milliseconds(self.longest.0), self.longest.1)?;
        writeln!(f, "| most memory resident | {resident_kib} KiB ({} before the first input) |", self.before_kib.0)?;
        writeln!(f, "| most address space | {space_kib} KiB ({} before the first input) |", self.before_kib.1)?;
        let by_count: BTreeMap<_, _> =
            self.outcomes.iter().map(|(name, count)| ((u64::MAX - count, name), count)).collect();
        by_count.into_iter().try_for_each(|((_, name), count)| writeln!(f, "| {name} | {count} |"))
    }
}
