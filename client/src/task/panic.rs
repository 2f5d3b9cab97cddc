//! A panic caught where a task ends, with what the hook saw where it began.
//!
//! The one thing to know: message and backtrace exist only while the stack still stands, so a hook
//! notes them for threads that run a task, silently; other threads' panics go to the hook that was
//! there before. This file must not know what a task is.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

/// What is known of a panic.
#[derive(Debug, Default)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) backtrace: Option<String>,
}

thread_local! {
    /// How many tasks this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static SEEN: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic in it ends here.
///
/// What the body had borrowed may be half changed afterwards: the caller keeps nothing of it but
/// what an actor's owner accepts.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, Panic> {
    install();
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(|| task_begins_here(body)));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|payload| SEEN.take().unwrap_or_else(|| Panic { message: text(&*payload), backtrace: None }))
}

/// A frame of its own, by which the user's part of a backtrace is told from ours.
#[inline(never)]
fn task_begins_here<R>(body: impl FnOnce() -> R) -> R {
    let result = body();
    // Something is left to do, so the call above is not a jump.
    std::hint::black_box(());
    result
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match DEPTH.get() {
            0 => before(info),
            _ => note(info),
        }));
    });
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let message = format!("{}{place}", text(info.payload()));
    let backtrace = Some(trimmed(&Backtrace::force_capture().to_string()));
    SEEN.set(Some(Panic { message, backtrace }));
}

fn text(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The user's part of a backtrace: from the panic to where this crate called the task.
fn trimmed(whole: &str) -> String {
    let frames = frames(whole);
    let is_start = |frame: &String| frame.contains("begin_unwind") || frame.contains("core::panicking::");
    let first = frames.iter().rposition(is_start).map_or(0, |start| start + 1);
    let last = frames.iter().position(|frame| frame.contains("task_begins_here")).unwrap_or(frames.len());
    frames.get(first..last).map_or_else(|| whole.to_owned(), |frames| frames.concat())
}

/// Lines joined so that each begins with the number of its frame.
fn frames(whole: &str) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    for line in whole.lines() {
        let is_place = line.trim_start().starts_with("at ");
        match frames.last_mut().filter(|_| is_place) {
            Some(frame) => *frame = format!("{frame}{line}\n"),
            None => frames.push(format!("{line}\n")),
        }
    }
    frames
}
