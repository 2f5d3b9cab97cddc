//! The executable `raylet`; everything is in the library.
//!
//! The one thing to know: there is nothing here to know. It must not grow.

fn main() -> std::process::ExitCode {
    raylet::cli::main()
}
