//! The soak: as many kills and stops at random instants as asked for, and what is left after them.
//!
//! The one thing to know: it is the body of the test `random_instants` with larger numbers; the seed
//! it prints begins the same choices again. It must not pass when anything is left.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;
use tests::mixed::{Outcome, Plan, run};

/// What the command line asks for.
struct Arguments {
    plan: Plan,
    write: Option<PathBuf>,
}

fn arguments() -> Option<Arguments> {
    let plan = Plan { seed: 20_261_121, processes: 16, kills: 20_000, stops: 20_000, capacity_bytes: 48 << 20 };
    let mut arguments = Arguments { plan, write: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--kills" => {
                arguments.plan.kills = value.parse().ok()?;
                arguments.plan.stops = arguments.plan.kills;
            }
            "--processes" => arguments.plan.processes = value.parse().ok()?,
            "--seed" => arguments.plan.seed = value.parse().ok()?,
            "--write" => arguments.write = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    Some(arguments)
}

fn report(plan: &Plan, outcome: &Outcome) -> String {
    let mut text = String::from("# Soak: kills and stops at random instants\n\n");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rows = [
        ("machine", format!("{} cores, {}", cores, std::env::consts::ARCH)),
        ("seed", plan.seed.to_string()),
        ("processes at a time", plan.processes.to_string()),
        ("store", format!("{} MiB, spilling", plan.capacity_bytes >> 20)),
        ("kills (SIGKILL)", outcome.kills.to_string()),
        ("stops (SIGSTOP, then SIGCONT or SIGKILL)", outcome.stops.to_string()),
        ("clients swept", outcome.swept.to_string()),
        ("operations", outcome.operations.to_string()),
        ("objects spilled / restored", format!("{} / {}", outcome.spilled.0, outcome.spilled.1)),
        ("seconds", format!("{:.1}", outcome.seconds)),
        ("wrong values", "0".to_owned()),
        ("objects left, bytes left, slots left", "0, 0, 0".to_owned()),
        ("descriptors left", outcome.descriptors_left.to_string()),
        ("files left in /dev/shm", outcome.files_left.to_string()),
        ("mappings of the segments left", outcome.mappings_left.to_string()),
        ("spill files left", outcome.spill_files_left.to_string()),
    ];
    text.push_str("| what | how much |\n| --- | --- |\n");
    for (what, how_much) in rows {
        writeln!(text, "| {what} | {how_much} |").expect("a string takes any text");
    }
    text.push_str(
        "\nWrong values, objects, bytes and slots are asserted: a run with any of them ends without a report.\n",
    );
    text
}

fn main() {
    let Some(Arguments { plan, write }) = arguments() else {
        eprintln!("usage: soak [--kills N] [--processes N] [--seed N] [--write FILE]");
        std::process::exit(2);
    };
    let start = Instant::now();
    println!("{plan:?}");
    let outcome =
        run(plan, |kills, stops| println!("{:7.1} s: {kills} kills, {stops} stops", start.elapsed().as_secs_f64()));
    let text = report(&plan, &outcome);
    println!("{text}");
    if let Some(path) = write {
        std::fs::write(path, text).expect("the report can be written where it was asked for");
    }
    let left = outcome.descriptors_left + outcome.files_left + outcome.mappings_left + outcome.spill_files_left;
    assert_eq!(left, 0, "something is left");
}
