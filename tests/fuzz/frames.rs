//! Streams of frames, mutated.
//!
//! The one thing to know: half of the inputs have the header of their first frame put right again,
//! or few bodies would be reached. The bytes come in two pieces, as from a socket. It must not
//! open one.

use crate::Reader;
use crate::tally::{Depth, Tally};
use raylet_api::frame::Decoder;
use raylet_api::*;
use store::arrow::fuzz::Mutator;

/// Length, kind, version, reserved.
const HEADER_BYTES: usize = 8;

/// Valid streams, and the last input.
pub(crate) struct Streams {
    seeds: Vec<Vec<u8>>,
    /// The kinds of messages among the seeds.
    kinds: Vec<u8>,
    bytes: Vec<u8>,
}

impl Streams {
    pub(crate) fn new() -> Streams {
        let messages = messages();
        let kinds = messages.iter().map(|message| message.kind() as u8).collect();
        let mut seeds: Vec<Vec<u8>> =
            messages.iter().map(|message| encode(message).expect("it fits a frame")).collect();
        seeds.push(seeds.concat());
        seeds.push(seeds[..2].concat());
        Streams { seeds, kinds, bytes: Vec::new() }
    }
}

/// One of each kind, with something in it where it can hold something.
fn messages() -> Vec<Message> {
    let mut status = StatusReply { session: "default".into(), uptime_ms: 1 << 33, ..StatusReply::default() };
    status.store.counters.insert("evicted".into(), 5);
    let holders = vec![Holder { client_index: 1, pid: 300, references: 2, pins: 1 }; 2];
    let object = ObjectInfo {
        id: ObjectId::of(&TaskId::driver(JobId::new(1)), 1),
        bytes: 1 << 40,
        state: ObjectState::OnDisk,
        age_ms: 2,
        listed_count: 0,
        reference_count: 3,
        pin_count: 0,
        holders,
    };
    let client = ClientInfo { label: "driver".into(), parent: Some(1), stopped: true, ..ClientInfo::default() };
    let mut messages: Vec<Message> = vec![
        Hello { protocol_version: 1, pid: 300, start_ticks: 70_000, label: "driver".into(), ..Hello::default() }.into(),
        Welcome { session_id: "s1".into(), spill_directory: Some("/d".into()), ..Welcome::default() }.into(),
        Status {}.into(),
        status.into(),
        ListObjects { cursor: 5, count_max: 100 }.into(),
        ObjectsReply { objects: vec![object; 3], next_cursor: Some(6) }.into(),
        ListClients { cursor: 0, count_max: 7 }.into(),
        ClientsReply { clients: vec![client; 2], next_cursor: None }.into(),
        Shutdown {}.into(),
        Ending { client_count: 2 }.into(),
        Error::new(ErrorCode::TooManyClients, "full", &[("max_clients", 4)]).into(),
    ];
    messages.extend(looks_inside());
    messages.extend(crate::work::messages());
    messages
}

/// The questions of the command line and their answers.
fn looks_inside() -> Vec<Message> {
    let demand: Demand = [("CPU".to_owned(), 10_000), ("tape".to_owned(), 5_000)].into();
    let task = TaskInfo { name: "f".into(), state: TaskState::Running, demand: demand.clone(), ..TaskInfo::default() };
    let actor = ActorInfo { name: Some("a".into()), death_cause: Some("killed".into()), ..ActorInfo::default() };
    let worker = WorkerInfo { pid: Some(300), gpus: vec![0, 1], ..WorkerInfo::default() };
    let group = GroupInfo { bundles: vec![demand.clone(); 2], used: vec![Demand::new(); 2], ..GroupInfo::default() };
    let summary = SummaryReply {
        capacity: demand,
        workers: [(WorkerState::Leased, 3)].into(),
        jobs: vec![JobInfo { job: 1, pid: Some(300), ..JobInfo::default() }],
        counters: [("worker_deaths".to_owned(), 5)].into(),
        ..SummaryReply::default()
    };
    let slice = Slice { name: "f".into(), pid: 300, start_us: 5, end_us: 1 << 40, ..Slice::default() };
    let span = Span { name: Some("load".into()), start_us: 5, end_us: 1 << 40, ..Span::default() };
    vec![
        ListTasks { cursor: 1 << 63, count_max: 100 }.into(),
        TasksReply { tasks: vec![task; 2], next_cursor: Some(6) }.into(),
        ListActors { cursor: 5, count_max: 100 }.into(),
        ActorsReply { actors: vec![actor; 2], next_cursor: None }.into(),
        ListWorkers { cursor: 5, count_max: 100 }.into(),
        WorkersReply { workers: vec![worker; 2], next_cursor: None }.into(),
        ListGroups { cursor: 5, count_max: 100 }.into(),
        GroupsReply { groups: vec![group; 2], next_cursor: None }.into(),
        Summary {}.into(),
        summary.into(),
        Timeline { collect: true, cursor: 5, count_max: 100 }.into(),
        TimelineReply { is_on: true, slices: vec![slice; 2], ..TimelineReply::default() }.into(),
        GiveEvents { request: 5 }.into(),
        Events { request: 5, spans: vec![span; 2], dropped_count: 1, is_last: true }.into(),
    ]
}

/// A header that fits the bytes behind it; mostly with the kind that it had.
fn put_right(bytes: &mut [u8], kinds: &[u8], random: &mut Mutator) {
    let length = bytes.len().wrapping_sub(4) as u32;
    let Some((header, _)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let kind = match (header[4], random.below(4)) {
        (kind, 1..) if kinds.contains(&kind) => kind,
        _ => kinds[random.below(kinds.len())],
    };
    // Another frame may follow: then the old length stands.
    if random.below(4) != 0 {
        header[..4].copy_from_slice(&length.to_le_bytes());
    }
    header[4..].copy_from_slice(&[kind, 0, 1, 0]);
}

impl Reader for Streams {
    fn input(&mut self, random: &mut Mutator, tally: &mut Tally) {
        random.mutate(&self.seeds, &mut self.bytes);
        if random.below(2) == 0 {
            put_right(&mut self.bytes, &self.kinds, random);
        }
        let (first, second) = self.bytes.split_at(random.below(self.bytes.len() + 1));
        let mut decoder = Decoder::new();
        let mut messages = 0;
        for piece in [first, second] {
            decoder.extend(piece);
            if let Err(error) = read(&mut decoder, &mut messages) {
                let is_first = matches!(error, ProtocolError::Oversize { .. } | ProtocolError::Undersize { .. });
                tally.depth(if is_first && messages == 0 { Depth::Refused } else { Depth::Entered });
                return tally.error(if messages == 0 { "" } else { "after a message" }, &error);
            }
        }
        let is_whole = decoder.is_empty() && messages > 0;
        tally.depth(if is_whole { Depth::Accepted } else { Depth::Entered });
        tally.outcome(if is_whole { "accepted" } else { "more bytes are needed" });
    }
}

fn read(decoder: &mut Decoder, messages: &mut u64) -> Result<(), ProtocolError> {
    while let Some(message) = decoder.next_message()? {
        std::hint::black_box(message);
        *messages += 1;
    }
    Ok(())
}
