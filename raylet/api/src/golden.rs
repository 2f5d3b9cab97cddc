//! The bytes of each message, pinned: a change here is a change of the protocol.
//!
//! The one thing to know: who sees this test fail has changed what old peers read. The crate's docs
//! say which changes are allowed; then, and only then, the bytes here follow the code.

use crate::frame::{decode, encode};
use crate::ids::{JobId, ObjectId, TaskId};
use crate::inside::*;
use crate::message::*;
use crate::work::Demand;

#[track_caller]
fn check(message: impl Into<Message>, expected: &str) {
    let message = message.into();
    let bytes = encode(&message).unwrap();
    assert_eq!(text(&bytes), expected, "{}", message.name());
    assert_eq!(decode(&bytes), Ok(Some((message, bytes.len()))));
}

/// Printable bytes as they are, the others as two digits between points.
fn text(bytes: &[u8]) -> String {
    let show = |&byte: &u8| match byte {
        b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!(".{byte:02x}"),
    };
    bytes.iter().map(show).collect()
}

fn object_id() -> ObjectId {
    ObjectId::of(&TaskId::driver(JobId::new(1)), 1)
}

#[test]
fn client_messages_keep_their_bytes() {
    check(
        Hello { protocol_version: 1, pid: 300, start_ticks: 70_000, label: "driver".into(), ..Hello::default() },
        "G.00.00.00.01.00.01.00.85.b0protocol_version.01.a3pid.cd.01.2c.abstart_ticks.ce.00\
         .01.11p.a5label.a6driver.a4want.a5Store",
    );
    check(Status {}, ".05.00.00.00.03.00.01.00.80");
    check(ListObjects { cursor: 5, count_max: 100 }, ".18.00.00.00.05.00.01.00.82.a6cursor.05.a9count_maxd");
    check(ListClients { cursor: 0, count_max: 7 }, ".18.00.00.00.07.00.01.00.82.a6cursor.00.a9count_max.07");
    check(Shutdown {}, ".05.00.00.00.09.00.01.00.80");
}

#[test]
fn raylet_messages_keep_their_bytes() {
    let welcome = Welcome {
        client_index: 3,
        client_generation: 1 << 44,
        session_id: "s1".into(),
        capacity_bytes: 1 << 31,
        slot_count: 1 << 24,
        max_clients: 256,
        layout_version: 1,
        job: 4,
        spill_directory: Some("/d".into()),
        raylet_pid: 9,
        tasks: None,
        timeline: false,
    };
    check(
        welcome,
        ".a3.00.00.00.02.00.01.00.8a.acclient_index.03.b1client_generation.cf.00.00.10.00.00.00\
         .00.00.aasession_id.a2s1.aecapacity_bytes.ce.80.00.00.00.aaslot_count.ce.01.00.00.00.a\
         bmax_clients.cd.01.00.aelayout_version.01.a3job.04.afspill_directory.a2.2fd.aaraylet_p\
         id.09",
    );
    check(Ending { client_count: 2 }, ".13.00.00.00.0a.00.01.00.81.acclient_count.02");
    let error = Error::new(ErrorCode::TooManyClients, "full", &[("max_clients", 4)]);
    check(
        error,
        "9.00.00.00.0b.00.01.00.83.a4code.aeTooManyClients.a4text.a4full.a7numbers.81.abmax_cli\
         ents.04",
    );
}

#[test]
fn listings_keep_their_bytes() {
    let holder = Holder { client_index: 1, pid: 2, references: 3, pins: 0 };
    let object = ObjectInfo {
        id: object_id(),
        bytes: 100,
        state: ObjectState::OnDisk,
        age_ms: 2,
        listed_count: 0,
        reference_count: 3,
        pin_count: 0,
        holders: vec![holder],
    };
    check(
        ObjectsReply { objects: vec![object], next_cursor: Some(6) },
        ".b2.00.00.00.06.00.01.00.82.a7objects.91.88.a2id.c4.1c.ff.ff.ff.ff.ff.ff.ff.ff.ff.ff.f\
         f.ff.ff.ff.ff.ff.ff.ff.ff.ff.01.00.00.00.01.00.00.00.a5bytesd.a5state.a6OnDisk.a6age_m\
         s.02.aclisted_count.00.afreference_count.03.a9pin_count.00.a7holders.91.84.acclient_in\
         dex.01.a3pid.02.aareferences.03.a4pins.00.abnext_cursor.06",
    );
    let client = ClientInfo { client_index: 1, label: "a".into(), ..ClientInfo::default() };
    check(
        ClientsReply { clients: vec![client], next_cursor: None },
        "y.00.00.00.08.00.01.00.82.a7clients.91.89.acclient_index.01.a3pid.00.a5label.a1a.a6age\
         _ms.00.a6parent.c0.aaheld_bytes.00.acpinned_bytes.00.adwaiting_bytes.00.a7stopped.c2.a\
         bnext_cursor.c0",
    );
}

#[test]
fn the_status_keeps_its_bytes() {
    let counters = [("gets".to_owned(), 5)].into();
    let store = StoreStatus { capacity_bytes: 70_000, counters, ..StoreStatus::default() };
    let status = StatusReply { session: "default".into(), store, ..StatusReply::default() };
    check(
        status,
        "Q.01.00.00.04.00.01.00.87.a7session.a7default.aasession_id.a0.aaraylet_pid.00.a9uptime\
         _ms.00.b0connection_count.00.b4bad_connection_count.00.a5store.8f.aecapacity_bytes.ce.\
         00.01.11p.aaused_bytes.00.acunused_bytes.00.aafree_bytes.00.aeresident_bytes.00.aemeta\
         data_bytes.00.adspilled_bytes.00.acobject_count.00.b4spilled_object_count.00.aaslot_co\
         unt.00.acclient_count.00.abmax_clients.00.b2swept_client_count.00.b0swept_hold_count.0\
         0.a8counters.81.a4gets.05",
    );
}

#[test]
fn looks_inside_keep_their_bytes() {
    check(ListTasks { cursor: 1, count_max: 2 }, ".18.00.00.00.40.00.01.00.82.a6cursor.01.a9count_max.02");
    check(ListActors { cursor: 1, count_max: 2 }, ".18.00.00.00B.00.01.00.82.a6cursor.01.a9count_max.02");
    check(ListWorkers { cursor: 1, count_max: 2 }, ".18.00.00.00D.00.01.00.82.a6cursor.01.a9count_max.02");
    check(ListGroups { cursor: 1, count_max: 2 }, ".18.00.00.00F.00.01.00.82.a6cursor.01.a9count_max.02");
    check(Summary {}, ".05.00.00.00H.00.01.00.80");
    check(
        Timeline { collect: true, cursor: 1, count_max: 2 },
        ".21.00.00.00J.00.01.00.83.a7collect.c3.a6cursor.01.a9count_max.02",
    );
    check(GiveEvents { request: 3 }, ".0e.00.00.00L.00.01.00.81.a7request.03");
}

#[test]
fn rows_of_work_keep_their_bytes() {
    let demand: Demand = [("CPU".to_owned(), 10_000)].into();
    let task = TaskInfo {
        task: Some(TaskId::driver(JobId::new(1))),
        name: "f".into(),
        state: TaskState::Running,
        transport: Transport::Direct,
        job: 1,
        actor: None,
        attempts: 1,
        worker: Some(2),
        pid: Some(300),
        caller_pid: None,
        demand: demand.clone(),
    };
    check(
        TasksReply { tasks: vec![task], next_cursor: Some(1) },
        ".9f.00.00.00A.00.01.00.82.a5tasks.91.8b.a4task.c4.18.ff.ff.ff.ff.ff.ff.ff.ff.ff.ff.ff.\
         ff.ff.ff.ff.ff.ff.ff.ff.ff.01.00.00.00.a4name.a1f.a5state.a7RUNNING.a9transport.a6DIRE\
         CT.a3job.01.a5actor.c0.a8attempts.01.a6worker.02.a3pid.cd.01.2c.aacaller_pid.c0.a6dema\
         nd.81.a3CPU.cd.27.10.abnext_cursor.01",
    );
    let actor = ActorInfo { actor: 1, state: ActorState::Alive, demand: demand.clone(), ..ActorInfo::default() };
    check(
        ActorsReply { actors: vec![actor], next_cursor: None },
        ".94.00.00.00C.00.01.00.82.a6actors.91.8d.a5actor.01.a2id.c0.a5class.a0.a4name.c0.a9nam\
         espace.c0.a5state.a5ALIVE.a3job.00.abis_detached.c2.adrestart_count.00.a6worker.c0.a3p\
         id.c0.abdeath_cause.c0.a6demand.81.a3CPU.cd.27.10.abnext_cursor.c0",
    );
    let worker = WorkerInfo { worker: 1, state: WorkerState::Idle, gpus: vec![3], ..WorkerInfo::default() };
    check(
        WorkersReply { workers: vec![worker], next_cursor: None },
        ".90.00.00.00E.00.01.00.82.a7workers.91.8c.a6worker.01.a3pid.c0.acclient_index.c0.a5sta\
         te.a4IDLE.a4runs.c0.a5actor.c0.aais_blocked.c2.abis_stopping.c2.aacall_count.00.abenvi\
         ronment.00.a6demand.80.a4gpus.91.03.abnext_cursor.c0",
    );
    let group = GroupInfo { state: GroupState::Created, bundles: vec![demand.clone()], ..GroupInfo::default() };
    check(
        GroupsReply { groups: vec![group], next_cursor: None },
        "n.00.00.00G.00.01.00.82.a6groups.91.89.a5group.00.a2id.c0.a4name.a0.a5state.a7CREATED.\
         a8strategy.a0.a3job.00.acbundle_count.00.a7bundles.91.81.a3CPU.cd.27.10.a4used.90.abne\
         xt_cursor.c0",
    );
}

#[test]
fn numbers_and_events_keep_their_bytes() {
    let summary = SummaryReply {
        capacity: [("CPU".to_owned(), 10_000)].into(),
        workers: [(WorkerState::Idle, 2)].into(),
        actors: [(ActorState::Dead, 1)].into(),
        groups: [(GroupState::Pending, 1)].into(),
        jobs: vec![JobInfo { job: 1, pid: Some(9), has_left: false, part_count: 2 }],
        counters: [("worker_deaths".to_owned(), 1)].into(),
        ..SummaryReply::default()
    };
    check(
        summary,
        ".19.01.00.00I.00.01.00.8e.a8capacity.81.a3CPU.cd.27.10.a4used.80.b4submitted_task_coun\
         t.00.b0ended_task_count.00.b2running_task_count.00.b3queued_record_count.00.b4claimed_\
         record_count.00.a7workers.81.a4IDLE.02.b4blocked_worker_count.00.b0worker_count_max.00\
         .a6actors.81.a4DEAD.01.a6groups.81.a7PENDING.01.a4jobs.91.84.a3job.01.a3pid.09.a8has_l\
         eft.c2.aapart_count.02.a8counters.81.adworker_deaths.01",
    );
    let slice = Slice { name: "f".into(), is_profile: true, pid: 9, thread: 0, start_us: 1, end_us: 2 };
    check(
        TimelineReply { is_on: true, slices: vec![slice], ..TimelineReply::default() },
        "v.00.00.00K.00.01.00.85.a5is_on.c3.a6slices.91.86.a4name.a1f.aais_profile.c3.a3pid.09.\
         a6thread.00.a8start_us.01.a6end_us.02.abnext_cursor.c0.b1outstanding_count.00.addroppe\
         d_count.00",
    );
    let spans = vec![
        Span { key: 7, start_us: 1, end_us: 2, ..Span::default() },
        Span { name: Some("load".into()), thread: 1, ..Span::default() },
    ];
    check(
        Events { request: 3, spans, dropped_count: 4, is_last: true },
        "w.00.00.00M.00.01.00.84.a7request.03.a5spans.92.84.a3key.07.a6thread.00.a8start_us.01.\
         a6end_us.02.85.a3key.00.a4name.a4load.a6thread.01.a8start_us.00.a6end_us.00.addropped_\
         count.04.a7is_last.c3",
    );
}

#[test]
fn codes_of_later_versions_are_unknown_and_no_error() {
    let error = Error::new(ErrorCode::Internal, "x", &[]);
    let mut bytes = encode(&error.into()).unwrap();
    let place = bytes.windows(8).position(|name| name == b"Internal").unwrap();
    bytes[place..place + 8].copy_from_slice(b"LaterOne");
    let (message, _) = decode(&bytes).unwrap().unwrap();
    assert_eq!(message, Error::new(ErrorCode::Unknown, "x", &[]).into());
}
