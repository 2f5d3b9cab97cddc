//! `bench-ray`: the rows of the Python package, printed and written to `target/bench/ray.json`.
//!
//! The one thing to know: the table is `ray::work`. Nothing is decided here.

use std::process::ExitCode;

use benches_compare::cli;
use benches_compare::ray::work::ray_works;

fn main() -> ExitCode {
    cli::main("ray", &ray_works())
}
