//! Hostile bytes for everything that reads bytes it did not write.
//!
//! ```text
//! cargo run --release -p tests --bin fuzz -- <arrow|table|spill|frame|all> [--inputs N] [--seed S]
//! ```
//!
//! The one thing to know: an input follows from seed and number, so a failure repeats from the line
//! it prints. A panic is a finding (exit code 101), and so is an input that takes longer than
//! [`PATIENCE`] (exit code 3).

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ::tests::hostile::{Target, work};

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two lines about progress.
const LINE: Duration = Duration::from_secs(10);

struct Wish {
    targets: Vec<Target>,
    inputs: u64,
    seed: u64,
}

fn wish(mut words: impl Iterator<Item = String>) -> Option<Wish> {
    let targets = match words.next()?.as_str() {
        "all" => Target::ALL.to_vec(),
        name => vec![Target::named(name)?],
    };
    let mut wish = Wish { targets, inputs: 100_000, seed: 1 };
    while let Some(word) = words.next() {
        let number = words.next()?.parse().ok()?;
        match word.as_str() {
            "--inputs" => wish.inputs = number,
            "--seed" => wish.seed = number,
            _ => return None,
        }
    }
    Some(wish)
}

/// Prints a line now and then; ends the process when one input takes too long.
fn watch(target: Target, seed: u64, done: &AtomicU64) {
    let mut last = (0, Instant::now());
    let mut line = Instant::now();
    let start = Instant::now();
    loop {
        std::thread::park_timeout(Duration::from_millis(200));
        let now = done.load(Ordering::Relaxed);
        if now == u64::MAX {
            return;
        }
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            eprintln!("{target:?}: an input after number {now} of seed {seed} does not end");
            std::process::exit(3);
        }
        if line.elapsed() > LINE {
            line = Instant::now();
            println!("{target:?} {now} inputs, {:.0}/s", now as f64 / start.elapsed().as_secs_f64());
        }
    }
}

fn run(target: Target, inputs: u64, seed: u64) {
    let start = Instant::now();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(target, seed, &done));
        work(target, inputs, seed, &done);
        done.store(u64::MAX, Ordering::Relaxed);
        watcher.thread().unpark();
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("{target:?} seed {seed}: {inputs} inputs in {seconds:.1} s, {:.0}/s, nothing found", inputs as f64 / seconds);
}

fn main() -> ExitCode {
    let Some(wish) = wish(std::env::args().skip(1)) else {
        eprintln!("fuzz <arrow|table|spill|frame|all> [--inputs N] [--seed S]");
        return ExitCode::from(2);
    };
    wish.targets.iter().for_each(|&target| run(target, wish.inputs, wish.seed));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_of_each_finds_nothing() {
        Target::ALL.into_iter().for_each(|target| run(target, 200_000, 2));
    }
}
