//! Tasks and threads of the raylet whose panic ends the process.
//!
//! The one thing to know: tokio swallows a panic, and a raylet that lost a task or a thread is worse
//! than one that is gone, which the next start sweeps. This file must not catch anything.

/// Runs a task whose panic ends the process.
pub(crate) fn spawn<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let _guard = AbortOnPanic;
        future.await;
    });
}

/// Ends the process when a panic passes by.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
