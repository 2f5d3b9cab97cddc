//! What ran when, in this process: calls, and the profile events of the program.
//!
//! ```
//! use raylet_client::profile_event;
//!
//! fn load() -> usize {
//!     let _event = profile_event("load");   // ends with the scope
//!     (0..1000).sum()
//! }
//! # load();
//! ```
//!
//! The one thing to know: it is off unless the raylet was started to keep a timeline, because reading
//! clocks costs; then spans are kept in a bounded ring until the raylet asks for them. This file must
//! not know who sends them.

use raylet_api::inside::{Events, NAME_BYTES_MAX, SPANS_COUNT_MAX, Span, cut};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Spans that are kept; the oldest go first.
const RING_COUNT_MAX: usize = 100_000;
/// As many are worth a message of their own.
const MANY_COUNT: usize = SPANS_COUNT_MAX;

static IS_ON: AtomicBool = AtomicBool::new(false);
static RING: Mutex<Ring> = Mutex::new(Ring { spans: VecDeque::new(), dropped: 0 });
static THREAD_COUNT: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// This thread's number in spans; `None` before its first.
    static THREAD: Cell<Option<u32>> = const { Cell::new(None) };
}

struct Ring {
    spans: VecDeque<Span>,
    dropped: u64,
}

impl Ring {
    fn push(&mut self, span: Span) {
        if self.spans.len() >= RING_COUNT_MAX {
            self.spans.pop_front();
            self.dropped += 1;
        }
        self.spans.push_back(span);
    }

    /// Everything, in messages of a size that fits; at least one, the last says so.
    fn take(&mut self, request: u64) -> Vec<Events> {
        let mut messages = Vec::new();
        loop {
            let count = self.spans.len().min(SPANS_COUNT_MAX);
            let spans = self.spans.drain(..count).collect();
            let is_last = self.spans.is_empty();
            messages.push(Events { request, spans, dropped_count: std::mem::take(&mut self.dropped), is_last });
            if is_last {
                return messages;
            }
        }
    }
}

/// Nobody panics inside; a ring left by somebody who did is as good as any.
fn ring() -> MutexGuard<'static, Ring> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether spans are kept.
#[inline]
pub(crate) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Keeps spans from here on.
pub(crate) fn turn_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Microseconds of the clock that all processes of the machine share.
pub(crate) fn now_us() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // Every kernel has this clock; a sandbox without one has no timeline.
    now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000)
}

/// A call of the function of this key ran on this thread.
pub(crate) fn record(key: u64, start_us: u64, end_us: u64) {
    if is_on() {
        ring().push(Span { key, name: None, thread: thread(), start_us, end_us });
    }
}

/// All that was kept, as messages to send; none is kept any more.
pub(crate) fn take(request: u64) -> Vec<Events> {
    ring().take(request)
}

/// Whether enough is kept to be worth a message that nobody asked for.
pub(crate) fn has_many() -> bool {
    is_on() && ring().spans.len() >= MANY_COUNT
}

/// Whether anything is kept.
pub(crate) fn has_any() -> bool {
    is_on() && !ring().spans.is_empty()
}

fn thread() -> u32 {
    THREAD.get().unwrap_or_else(|| {
        let thread = THREAD_COUNT.fetch_add(1, Ordering::Relaxed);
        THREAD.set(Some(thread));
        thread
    })
}

/// A stretch of the program that shows in the timeline, from [`profile_event`] to its drop.
#[derive(Debug)]
#[must_use = "the event ends when this is dropped"]
pub struct ProfileEvent {
    /// Nothing where no timeline is kept.
    begun: Option<(String, u64)>,
}

/// Begins a stretch that shows in `raylet timeline` under this name, inside the task that runs, if one
/// does. Costs next to nothing where no timeline is kept. 100 bytes of the name are.
pub fn profile_event(name: &str) -> ProfileEvent {
    ProfileEvent { begun: is_on().then(|| (cut(name, NAME_BYTES_MAX).to_owned(), now_us())) }
}

impl Drop for ProfileEvent {
    fn drop(&mut self) {
        if let Some((name, start_us)) = self.begun.take() {
            let end_us = now_us();
            ring().push(Span { key: 0, name: Some(name), thread: thread(), start_us, end_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_the_newest_and_counts_what_it_lost() {
        let mut ring = Ring { spans: VecDeque::new(), dropped: 0 };
        for key in 0..RING_COUNT_MAX as u64 + 3 {
            ring.push(Span { key, ..Span::default() });
        }
        let messages = ring.take(7);
        assert!(messages.iter().all(|message| message.spans.len() <= SPANS_COUNT_MAX && message.request == 7));
        assert_eq!(messages.iter().map(|message| message.spans.len()).sum::<usize>(), RING_COUNT_MAX);
        assert_eq!((messages[0].spans[0].key, messages[0].dropped_count), (3, 3));
        assert_eq!(messages.iter().filter(|message| message.is_last).count(), 1);
        assert_eq!(ring.take(8), [Events { request: 8, is_last: true, ..Events::default() }]);
    }

    /// The only test that turns the process' own on; the others must not mind.
    #[test]
    fn profile_events_are_spans_with_names() {
        drop(profile_event("before anybody asked"));
        turn_on();
        {
            let _outer = profile_event("outer");
            record(5, 1, 2);
        }
        let spans: Vec<Span> = take(1).into_iter().flat_map(|message| message.spans).collect();
        let call = spans.iter().find(|span| span.key == 5).expect("it was recorded");
        let outer = spans.iter().find(|span| span.name.as_deref() == Some("outer")).expect("it was recorded");
        assert!(outer.start_us <= outer.end_us && outer.thread == call.thread);
        assert!(spans.iter().all(|span| span.name.as_deref() != Some("before anybody asked")));
    }
}
