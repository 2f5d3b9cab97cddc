//! A test in a process of its own.
//!
//! The one thing to know: the test binary starts itself again with only that test, so the test is
//! the only one whose stores a forked child inherits, and what it leaves behind can be counted. It
//! must not hide a failure: the child's panic goes to the terminal, its status to the test.

use std::process::{Command, Stdio};
use std::thread;

/// Set in the second process to the name of the test that it is for.
const MARK: &str = "RAYLET_TEST_ALONE";

/// Runs `body` in a process of its own; `module` and `name` are those of the calling test.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var(MARK).is_ok_and(|marked| marked == name) {
        body();
        return;
    }
    let binary = std::env::current_exe().expect("a running program has a path");
    let status = Command::new(binary)
        .env("RUST_BACKTRACE", "0")
        .args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(MARK, name)
        .stdout(Stdio::null())
        .status()
        .expect("the test binary starts again");
    assert!(status.success(), "{name} failed in its own process: {status}");
}

/// The name of the running test, as libtest gives it to the test's thread.
pub fn test_name() -> String {
    thread::current().name().unwrap_or("main").to_owned()
}

/// The body of a test, in a process of its own.
#[macro_export]
macro_rules! alone {
    ($(#[$doc:meta])* $name:ident $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            $crate::alone::alone(concat!(module_path!(), "::", stringify!($name)).split_once("::").expect("crate::test").1, || $body);
        }
    };
}
