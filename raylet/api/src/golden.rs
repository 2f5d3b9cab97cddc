//! The bytes of each message, pinned: a change here is a change of the protocol.
//!
//! The one thing to know: who sees this test fail has changed what old peers read. The crate's docs
//! say which changes are allowed; then, and only then, the bytes here follow the code.

use crate::frame::{decode, encode};
use crate::ids::{JobId, ObjectId, TaskId};
use crate::message::*;

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
fn codes_of_later_versions_are_unknown_and_no_error() {
    let error = Error::new(ErrorCode::Internal, "x", &[]);
    let mut bytes = encode(&error.into()).unwrap();
    let place = bytes.windows(8).position(|name| name == b"Internal").unwrap();
    bytes[place..place + 8].copy_from_slice(b"LaterOne");
    let (message, _) = decode(&bytes).unwrap().unwrap();
    assert_eq!(message, Error::new(ErrorCode::Unknown, "x", &[]).into());
}
