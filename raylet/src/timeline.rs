//! What ran when, as workers and drivers tell it: gathered here, until somebody asks.
//!
//! The one thing to know: each process keeps what ran in it and says so when it is asked, or by itself
//! before it sleeps; what was said outlives the one who said it, up to a bound. Nothing here waits:
//! an asker is told how many are still to answer, and asks again. This file must not know sockets.

use raylet_api::inside::*;
use std::collections::{BTreeSet, VecDeque};

/// Slices that are kept; the oldest go first. At 64 bytes each, 64 MiB.
const SLICES_COUNT_MAX: usize = 1 << 20;
/// Bytes of a page, roughly: far below what a frame may have.
const PAGE_BYTES_MAX: usize = 512 << 10;
/// Bytes of a slice beside its name, roughly.
const SLICE_BYTES: usize = 96;

/// A span and where it was.
#[derive(Debug)]
struct Heard {
    span: Span,
    pid: u32,
}

/// Everything that was said so far.
#[derive(Debug)]
pub(crate) struct Collector {
    is_on: bool,
    heard: VecDeque<Heard>,
    /// The number of the oldest that is kept: cursors are numbers, which a dropped one does not shift.
    first: u64,
    dropped: u64,
    request: u64,
    /// Lines that were asked and have not answered to the end.
    outstanding: BTreeSet<u64>,
    count_max: usize,
}

impl Collector {
    pub(crate) fn new(is_on: bool) -> Collector {
        Collector {
            is_on,
            heard: VecDeque::new(),
            first: 0,
            dropped: 0,
            request: 0,
            outstanding: BTreeSet::new(),
            count_max: SLICES_COUNT_MAX,
        }
    }

    /// The question to send to each of these lines; none where nothing is kept.
    pub(crate) fn ask(&mut self, lines: impl IntoIterator<Item = u64>) -> Option<GiveEvents> {
        if !self.is_on {
            return None;
        }
        self.request += 1;
        self.outstanding = lines.into_iter().collect();
        Some(GiveEvents { request: self.request })
    }

    /// What the process at the end of a line says.
    pub(crate) fn heard(&mut self, line: u64, pid: u32, events: Events) {
        if !self.is_on {
            return;
        }
        if events.is_last && events.request == self.request {
            self.outstanding.remove(&line);
        }
        self.dropped += events.dropped_count;
        for span in events.spans {
            if self.heard.len() >= self.count_max {
                self.heard.pop_front();
                self.first += 1;
                self.dropped += 1;
            }
            self.heard.push_back(Heard { span, pid });
        }
    }

    /// The line has ended: no answer will come.
    pub(crate) fn gone(&mut self, line: u64) {
        self.outstanding.remove(&line);
    }

    /// A page; `name` knows the functions.
    pub(crate) fn page<'a>(&self, asked: &Timeline, name: impl Fn(u64) -> Option<&'a str>) -> TimelineReply {
        let from = asked.cursor.max(self.first);
        let skip = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        let count_max = (asked.count_max as usize).clamp(1, SPANS_COUNT_MAX);
        let (mut slices, mut bytes) = (Vec::new(), 0);
        for heard in self.heard.iter().skip(skip) {
            if slices.len() >= count_max || bytes >= PAGE_BYTES_MAX {
                break;
            }
            let slice = slice(heard, &name);
            bytes += SLICE_BYTES + slice.name.len();
            slices.push(slice);
        }
        let next = from + slices.len() as u64;
        TimelineReply {
            is_on: self.is_on,
            slices,
            next_cursor: Some(next).filter(|&next| next < self.first + self.heard.len() as u64),
            outstanding_count: self.outstanding.len() as u32,
            dropped_count: self.dropped,
        }
    }
}

fn slice<'a>(heard: &Heard, name: impl Fn(u64) -> Option<&'a str>) -> Slice {
    let Heard { span, pid } = heard;
    let name = match &span.name {
        Some(name) => cut(name, NAME_BYTES_MAX).to_owned(),
        None => {
            name(span.key).map_or_else(|| format!("function {:#018x}", span.key), |n| cut(n, NAME_BYTES_MAX).into())
        }
    };
    Slice {
        name,
        is_profile: span.name.is_some(),
        pid: *pid,
        thread: span.thread,
        start_us: span.start_us,
        end_us: span.end_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(request: u64, keys: &[u64]) -> Events {
        let spans = keys.iter().map(|&key| Span { key, ..Span::default() }).collect();
        Events { request, spans, dropped_count: 0, is_last: true }
    }

    fn page(collector: &Collector, cursor: u64, count_max: u32) -> TimelineReply {
        collector.page(&Timeline { collect: false, cursor, count_max }, |key| (key == 1).then_some("f"))
    }

    #[test]
    fn what_is_off_keeps_nothing_and_asks_nobody() {
        let mut collector = Collector::new(false);
        assert_eq!(collector.ask([1, 2]), None);
        collector.heard(1, 300, events(0, &[1]));
        assert_eq!(page(&collector, 0, 9), TimelineReply::default());
    }

    #[test]
    fn everybody_is_waited_for_who_lives_and_was_asked_last() {
        let mut collector = Collector::new(true);
        assert_eq!(collector.ask([1, 2, 3]), Some(GiveEvents { request: 1 }));
        assert_eq!(collector.ask([1, 2, 3]), Some(GiveEvents { request: 2 }));
        collector.heard(1, 300, events(1, &[1]));
        assert_eq!(page(&collector, 0, 9).outstanding_count, 3);
        collector.heard(1, 300, events(2, &[9]));
        collector.heard(2, 301, Events { is_last: false, ..events(2, &[]) });
        collector.gone(3);
        let reply = page(&collector, 0, 9);
        assert_eq!((reply.outstanding_count, reply.next_cursor), (1, None));
        let names: Vec<_> = reply.slices.iter().map(|slice| (slice.name.as_str(), slice.pid)).collect();
        assert_eq!(names, [("f", 300), ("function 0x0000000000000009", 300)]);
    }

    #[test]
    fn pages_go_on_where_they_were_although_the_oldest_go() {
        let mut collector = Collector { count_max: 4, ..Collector::new(true) };
        collector.heard(1, 300, events(0, &[1, 2, 3]));
        let first = page(&collector, 0, 2);
        assert_eq!((first.slices.len(), first.next_cursor), (2, Some(2)));
        collector.heard(1, 300, events(0, &[4, 5, 6]));
        let second = page(&collector, 2, 9);
        assert_eq!((second.slices.len(), second.next_cursor, second.dropped_count), (4, None, 2));
        assert_eq!(page(&collector, u64::MAX, 9).slices, []);
    }
}
