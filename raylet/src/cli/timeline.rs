//! `raylet timeline`: what ran when, as a Chrome trace.
//!
//! The one thing to know: a trace viewer takes slices of one track for nested, so calls that overlap
//! without nesting (an actor with several threads, or async) get tracks of their own beside the first.
//! This file must not know how slices were gathered.

use super::{CliError, SessionOptions, print};
use crate::ask::{AskError, Asker};
use clap::Args;
use raylet_api::inside::*;
use raylet_api::message::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long workers may take to say what ran; a stopped one never does.
const ANSWER_TIME: Duration = Duration::from_secs(1);
const LOOK_AGAIN_DELAY: Duration = Duration::from_millis(5);
/// Tracks that one thread may have.
const LANES_MAX: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    session: SessionOptions,
    /// Where to write the trace; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "timeline.json")]
    output: PathBuf,
}

/// All slices, and what is missing.
#[derive(Debug, Default)]
struct Timelines {
    slices: Vec<Slice>,
    silent_count: u32,
    dropped_count: u64,
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let trace = trace_of(&options.session.directory()?)?;
    let failed = |source| CliError::File { path: options.output.clone(), source };
    write(&options.output, &trace).map_err(failed)
}

/// What ran when, as a trace.
pub(super) fn trace_of(directory: &Path) -> Result<Value, CliError> {
    let mut asker = Asker::connect(directory)?;
    let silent_count = collect(&mut asker)?;
    let mut found = all(&mut asker)?;
    found.silent_count = silent_count;
    if found.silent_count > 0 {
        tracing::warn!(count = found.silent_count, "some processes did not say in time what ran there");
    }
    if found.dropped_count > 0 {
        tracing::warn!(count = found.dropped_count, "the oldest slices are lost, there were too many");
    }
    Ok(trace(found.slices))
}

/// Has everybody asked, and waits until they have answered; how many have not.
fn collect(asker: &mut Asker) -> Result<u32, CliError> {
    let started = Instant::now();
    let mut is_first = true;
    loop {
        let reply = page(asker, Timeline { collect: is_first, cursor: 0, count_max: 1 })?;
        if !reply.is_on {
            return Err(CliError::NoTimeline);
        }
        if reply.outstanding_count == 0 || started.elapsed() > ANSWER_TIME {
            return Ok(reply.outstanding_count);
        }
        is_first = false;
        std::thread::sleep(LOOK_AGAIN_DELAY);
    }
}

fn all(asker: &mut Asker) -> Result<Timelines, AskError> {
    let (mut found, mut cursor) = (Timelines::default(), 0);
    loop {
        let reply = page(asker, Timeline { collect: false, cursor, count_max: SPANS_COUNT_MAX as u32 })?;
        found.slices.extend(reply.slices);
        found.dropped_count = reply.dropped_count;
        match reply.next_cursor {
            Some(next) if next > cursor => cursor = next,
            _ => return Ok(found),
        }
    }
}

fn page(asker: &mut Asker, question: Timeline) -> Result<TimelineReply, AskError> {
    match asker.ask(question)? {
        Message::TimelineReply(reply) => Ok(reply),
        other => Err(AskError::Unexpected { found: other.name() }),
    }
}

fn write(path: &Path, trace: &Value) -> std::io::Result<()> {
    if path == Path::new("-") {
        print(&(trace.to_string() + "\n"));
        return Ok(());
    }
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer(&mut file, trace)?;
    file.flush()?;
    let count = trace["traceEvents"].as_array().map_or(0, |events| events.iter().filter(|e| e["ph"] == "X").count());
    print(&format!("{count} slices in {}\n", path.display()));
    Ok(())
}

/// The trace event format: `X` is a slice with its length, `M` names processes and threads.
fn trace(mut slices: Vec<Slice>) -> Value {
    slices.sort_by_key(|slice| (slice.pid, slice.thread, slice.start_us, std::cmp::Reverse(slice.end_us)));
    let mut events = Vec::with_capacity(slices.len() + 16);
    let mut tracks: BTreeMap<(u32, u32), Lanes> = BTreeMap::new();
    for slice in &slices {
        let lane = tracks.entry((slice.pid, slice.thread)).or_default().place(slice);
        events.push(event(slice, track_id(slice.thread, lane)));
    }
    let mut named = None;
    for (&(pid, thread), lanes) in &tracks {
        if named.replace(pid) != Some(pid) {
            events.push(json!({"ph": "M", "name": "process_name", "pid": pid, "tid": 0,
                               "args": {"name": format!("pid {pid}")}}));
        }
        for lane in 0..lanes.0.len() {
            let name = if lane == 0 { format!("thread {thread}") } else { format!("thread {thread}, beside {lane}") };
            events.push(json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": track_id(thread, lane),
                               "args": {"name": name}}));
        }
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events})
}

fn event(slice: &Slice, track: u64) -> Value {
    json!({
        "ph": "X",
        "name": slice.name,
        "cat": if slice.is_profile { "profile" } else { "task" },
        "ts": slice.start_us,
        "dur": slice.end_us.saturating_sub(slice.start_us),
        "pid": slice.pid,
        "tid": track,
    })
}

fn track_id(thread: u32, lane: usize) -> u64 {
    u64::from(thread) * LANES_MAX as u64 + lane as u64
}

/// The tracks of one thread: of each, the ends of the slices that are open.
#[derive(Debug, Default)]
struct Lanes(Vec<Vec<u64>>);

impl Lanes {
    /// The first track where the slice lies within what is open, or nothing is. Slices come by their
    /// beginning.
    fn place(&mut self, slice: &Slice) -> usize {
        for (lane, open) in self.0.iter_mut().enumerate() {
            while open.last().is_some_and(|&end| end <= slice.start_us) {
                open.pop();
            }
            if open.last().is_none_or(|&end| slice.end_us <= end) {
                open.push(slice.end_us);
                return lane;
            }
        }
        if self.0.len() < LANES_MAX {
            self.0.push(vec![slice.end_us]);
        }
        self.0.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(thread: u32, start_us: u64, end_us: u64) -> Slice {
        Slice { name: "f".into(), is_profile: false, pid: 300, thread, start_us, end_us }
    }

    fn tracks(slices: Vec<Slice>) -> Vec<(u64, u64)> {
        let trace = trace(slices);
        let events = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
        events.map(|event| (event["ts"].as_u64().unwrap(), event["tid"].as_u64().unwrap())).collect()
    }

    #[test]
    fn nested_slices_share_a_track_and_overlapping_ones_do_not() {
        assert_eq!(tracks(vec![slice(0, 0, 10), slice(0, 2, 5), slice(0, 10, 12)]), [(0, 0), (2, 0), (10, 0)]);
        assert_eq!(tracks(vec![slice(0, 0, 10), slice(0, 5, 15), slice(0, 12, 13)]), [(0, 0), (5, 1), (12, 0)]);
        assert_eq!(tracks(vec![slice(0, 0, 10), slice(1, 5, 15)]), [(0, 0), (5, 1000)]);
    }

    #[test]
    fn a_trace_names_its_tracks() {
        let trace = trace(vec![slice(0, 5, 7), slice(0, 6, 9)]);
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!((events[0]["dur"].as_u64(), events[0]["cat"].as_str()), (Some(2), Some("task")));
        let names: Vec<_> = events.iter().filter_map(|event| event["args"]["name"].as_str()).collect();
        assert_eq!(names, ["pid 300", "thread 0", "thread 0, beside 1"]);
    }

    #[test]
    fn tracks_of_one_thread_are_bounded() {
        let many = (0..LANES_MAX as u64 + 5).map(|at| slice(0, at, at + 1_000_000)).collect();
        assert!(tracks(many).iter().all(|(_, track)| *track < LANES_MAX as u64));
    }
}
