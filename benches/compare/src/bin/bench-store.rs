//! `bench-store`: the store's rows, printed and written to `target/bench/store.json`.
//!
//! The one thing to know: the table is `store::work`. Nothing is decided here.

use std::process::ExitCode;

use benches_compare::cli;
use benches_compare::store::work::STORE_WORKS;

fn main() -> ExitCode {
    cli::main("store", &STORE_WORKS)
}
