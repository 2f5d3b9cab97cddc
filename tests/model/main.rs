//! Random operations of several clients against a map that says what must exist.
//!
//! The one thing to know: a seed decides everything, so a failure repeats: it prints the seed, the
//! step and the command. The clients live in one process, each with a row, a heap and mappings of
//! its own; one that is *abandoned* gives nothing back itself, as if it had been killed. It must
//! not wait or start threads.

mod reference;
mod run;

use run::Run;
use tests::chance::Chance;

/// Steps of one store, and stores: a hundred thousand steps in all.
const STEPS: u64 = 4_000;
const STORES: u64 = 25;
/// Steps between two looks at everything.
const CHECK_EVERY: u64 = 16;

/// Says how to repeat a run that fails.
struct Repeat {
    seed: u64,
    step: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Repeat { seed, step } = self;
            eprintln!("seed {seed}, step {step}; to repeat: RAYLET_SEED={seed} cargo test -p tests --test model");
        }
    }
}

fn run(seed: u64) {
    let mut repeat = Repeat { seed, step: 0 };
    let mut run = Run::new(Chance::new(seed));
    for step in 0..STEPS {
        repeat.step = step;
        run.step();
        if step % CHECK_EVERY == 0 {
            run.check();
        }
    }
    run.end();
}

#[test]
fn clients_do_what_the_map_says() {
    if let Ok(seed) = std::env::var("RAYLET_SEED") {
        return run(seed.parse().expect("RAYLET_SEED is a number"));
    }
    (1..=STORES).for_each(run);
}
