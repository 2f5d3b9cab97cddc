//! Hostile bytes for everything that reads bytes it did not write.
//!
//! ```text
//! cargo run --release -p tests --bin fuzz -- <arrow|table|spill|frame|all> [--inputs N] [--seed S] [--from I]
//! ```
//!
//! The one thing to know: an input follows from seed and number, so what is found repeats from the
//! line that is printed (`--from NUMBER --inputs 1`). A panic is a finding (exit code 101), and so
//! are an input that computes for longer than a second (exit code 4) or does not end within
//! [`PATIENCE`] (exit code 3), and memory beyond [`MEMORY_BYTES_MAX`] (the allocation fails, which
//! ends the process). It must not wait for anything.

mod arrow;
mod frames;
mod spills;
mod tables;
mod tally;
mod work;

use nix::sys::resource::{Resource, setrlimit};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::arrow::fuzz::Mutator;
use tally::Tally;

/// Longer than any input takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// What one input may compute for.
const INPUT_CPU_MAX: Duration = Duration::from_secs(1);
/// Between two lines about progress.
const LINE: Duration = Duration::from_secs(30);
/// Address space of the whole process: no input needs more than a few MiB of it.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// What reads the bytes of one kind.
trait Reader {
    /// Makes one input from `random`, has it read, and notes what came of it.
    fn input(&mut self, random: &mut Mutator, tally: &mut Tally);
}

const TARGETS: [&str; 4] = ["arrow", "table", "spill", "frame"];

fn reader(target: &str) -> Box<dyn Reader> {
    match target {
        "arrow" => Box::new(arrow::Tables::new()),
        "table" => Box::new(tables::Stores::new()),
        "spill" => Box::new(spills::Files::new()),
        _ => Box::new(frames::Streams::new()),
    }
}

struct Wish {
    targets: Vec<&'static str>,
    inputs: u64,
    seed: u64,
    from: u64,
}

fn wish(mut words: impl Iterator<Item = String>) -> Option<Wish> {
    let targets = match words.next()?.as_str() {
        "all" => TARGETS.to_vec(),
        name => vec![*TARGETS.iter().find(|target| **target == name)?],
    };
    let mut wish = Wish { targets, inputs: 100_000, seed: 1, from: 0 };
    while let Some(word) = words.next() {
        let number = words.next()?.parse().ok()?;
        match word.as_str() {
            "--inputs" => wish.inputs = number,
            "--seed" => wish.seed = number,
            "--from" => wish.from = number,
            _ => return None,
        }
    }
    Some(wish)
}

/// Prints a line now and then; ends the process when one input takes too long.
fn watch(target: &str, seed: u64, at: &AtomicU64) {
    let start = Instant::now();
    let (mut last, mut line) = ((0, start), start);
    loop {
        std::thread::park_timeout(Duration::from_millis(200));
        let now = at.load(Ordering::Relaxed);
        if now == u64::MAX {
            return;
        }
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            eprintln!("{target}: input {now} of seed {seed} does not end");
            std::process::exit(3);
        }
        if line.elapsed() > LINE {
            line = Instant::now();
            println!("{target}: at input {now}, {:.0} s", start.elapsed().as_secs_f64());
        }
    }
}

/// Tells the watcher that it is over, and where, also when that was a panic.
struct Over<'a> {
    target: &'a str,
    seed: u64,
    at: &'a AtomicU64,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let at = self.at.swap(u64::MAX, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("{} --seed {} --from {at} --inputs 1 repeats it", self.target, self.seed);
        }
    }
}

fn inputs(wish: &Wish, target: &str, at: &AtomicU64) -> Tally {
    let _over = Over { target, seed: wish.seed, at };
    let mut reader = reader(target);
    let mut tally = Tally::new();
    for number in wish.from..wish.from.saturating_add(wish.inputs) {
        at.store(number, Ordering::Relaxed);
        // Consecutive seeds of the generator overlap: they are mixed first.
        let mut random = Mutator::new(Mutator::new(wish.seed).random() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        tally.timed(number, |tally| reader.input(&mut random, tally));
    }
    tally
}

/// Whether no input took too long.
fn run(wish: &Wish, target: &str) -> bool {
    let (start, at) = (Instant::now(), AtomicU64::new(wish.from));
    let tally = std::thread::scope(|scope| {
        scope.spawn(|| watch(target, wish.seed, &at));
        inputs(wish, target, &at)
    });
    println!("{target}: seed {}, {:.1} s", wish.seed, start.elapsed().as_secs_f64());
    print!("{tally}");
    tally.longest_cpu() < INPUT_CPU_MAX
}

fn main() -> ExitCode {
    let Some(wish) = wish(std::env::args().skip(1)) else {
        eprintln!("fuzz <arrow|table|spill|frame|all> [--inputs N] [--seed S] [--from I]");
        return ExitCode::from(2);
    };
    if let Err(error) = setrlimit(Resource::RLIMIT_AS, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX) {
        eprintln!("memory is not limited: {error}");
    }
    let is_quick = wish.targets.iter().all(|target| run(&wish, target));
    if is_quick { ExitCode::SUCCESS } else { ExitCode::from(4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &'static str, least_accepted: f64) {
        let wish = Wish { targets: vec![target], inputs: 20_000, seed: 2, from: 0 };
        let at = AtomicU64::new(0);
        let tally = inputs(&wish, target, &at);
        assert!(tally.longest_cpu() < INPUT_CPU_MAX, "{target}: {tally}");
        // Inputs that nobody accepts prove little.
        assert!(tally.accepted_share() > least_accepted, "{target}: {tally}");
    }

    #[test]
    fn a_short_run_of_arrow_finds_nothing() {
        check("arrow", 0.1);
    }

    #[test]
    fn a_short_run_of_table_finds_nothing() {
        check("table", 0.1);
    }

    #[test]
    fn a_short_run_of_spill_finds_nothing() {
        check("spill", 0.05);
    }

    #[test]
    fn a_short_run_of_frame_finds_nothing() {
        check("frame", 0.05);
    }

    #[test]
    fn an_input_follows_from_seed_and_number() {
        for target in TARGETS {
            let one =
                |from| inputs(&Wish { targets: vec![target], inputs: 50, seed: 3, from }, target, &AtomicU64::new(0));
            let outcomes = |tally: &Tally| tally.outcomes();
            assert_eq!(outcomes(&one(100)), outcomes(&one(100)), "{target}");
        }
    }
}
