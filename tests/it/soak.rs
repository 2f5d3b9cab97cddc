//! Mixed work, killed and stopped at random instants.
//!
//! The one thing to know: `RAYLET_SEED` begins other choices; the binary `soak` does the same for
//! longer. It must not check less than nothing being left.

use tests::alone;
use tests::chance::Chance;
use tests::mixed::{Plan, run};

alone!(random_instants {
    let seed = Chance::seed_or(1);
    let plan = Plan { seed, processes: 6, kills: 300, stops: 300, capacity_bytes: 24 << 20 };
    let outcome = run(plan, |_, _| {});
    eprintln!("seed {seed}: {outcome:?}");
    assert!(outcome.kills >= plan.kills && outcome.stops >= plan.stops, "{outcome:?}");
    assert!(outcome.operations > plan.kills, "the processes did next to nothing: {outcome:?}");
    let left = (outcome.descriptors_left, outcome.files_left, outcome.mappings_left, outcome.spill_files_left);
    assert_eq!(left, (0, 0, 0, 0), "descriptors, files, mappings, spill files are left");
});
