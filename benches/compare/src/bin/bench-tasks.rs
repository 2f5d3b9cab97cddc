//! `bench-tasks`: the rows of tasks and actors, printed and written to `target/bench/tasks.json`.
//!
//! The one thing to know: the table is `tasks::work`. This executable is also the raylet, the zygote
//! and the workers of what it measures, as every driver's is. Nothing is decided here.

use std::process::ExitCode;

use benches_compare::cli;
use benches_compare::tasks::work::TASK_WORKS;

fn main() -> ExitCode {
    cli::main("tasks", &TASK_WORKS)
}
