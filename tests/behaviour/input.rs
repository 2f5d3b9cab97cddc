//! What comes from outside and is wrong: segments, ids, handles, too much of anything.

use crate::common::{MIB, check_nothing_is_left, small, small_config, under};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use store::{ClientId, Config, CreateError, CreateOptions, Handle, LayoutError, ObjectId, OpenError, Segments, Store};
use store_shm::ProcessId;
use store_shm::segment::Memfd;
use tests::Unboxed;
use tests::world::{check_empty, id_of};

const CAPACITY: u64 = 4 * MIB;
/// Where the header of the tables has which number.
const MAGIC_AT: u64 = 0;
const VERSION_AT: u64 = 8;
const CAPACITY_AT: u64 = 16;
const SLOTS_AT: u64 = 24;
const CLIENTS_AT: u64 = 32;
const BUCKETS_AT: u64 = 40;

/// A segment of `bytes` that begins as the given one does, with eight of its bytes replaced.
fn altered(original: &OwnedFd, bytes: u64, at: u64, number: &[u8]) -> OwnedFd {
    let mut page = [0; 4096];
    let from = File::from(original.try_clone().expect("a descriptor can be duplicated"));
    from.read_exact_at(&mut page, 0).expect("the header is there");
    let copy = Memfd::create("altered", bytes)
        .expect("a segment can be made")
        .try_clone()
        .expect("a descriptor can be duplicated");
    let to = File::from(copy);
    let end = page.len().min(bytes as usize);
    to.write_all_at(&page[..end], 0).expect("the segment is ours");
    if at + number.len() as u64 <= bytes {
        to.write_all_at(number, at).expect("the segment is ours");
    }
    to.into()
}

fn size_of_file(fd: &OwnedFd) -> u64 {
    File::from(fd.try_clone().expect("a descriptor can be duplicated")).metadata().expect("it is open").len()
}

/// What joining says when the tables have other bytes at `at`.
fn attach_with(at: u64, number: &[u8]) -> LayoutError {
    let store = small(CAPACITY);
    let segments = store.segments().expect("descriptors are left");
    let bytes = size_of_file(&segments.tables);
    let tables = altered(&segments.tables, bytes, at, number);
    refused(&store, Segments { tables, ..segments })
}

fn refused(store: &Store, segments: Segments) -> LayoutError {
    let client = store.admit(ProcessId::current(), "stranger").expect("a number is free");
    match Store::attach(segments, client, Config::default()).map(|_| ()) {
        Err(OpenError::Layout(error)) => error,
        other => panic!("no such error: {other:?}"),
    }
}

#[test]
fn segments_that_are_no_store_of_this_version_are_refused() {
    let error = attach_with(MAGIC_AT, &7u64.to_le_bytes());
    assert!(matches!(error, LayoutError::Magic { found: 7, .. }), "{error}");
    let error = attach_with(VERSION_AT, &(store::LAYOUT_VERSION + 1).to_le_bytes());
    assert!(matches!(error, LayoutError::Version { found, expected } if found == expected + 1), "{error}");
}

#[test]
fn segments_with_impossible_sizes_are_refused() {
    for (at, name) in
        [(CAPACITY_AT, "capacity_bytes"), (SLOTS_AT, "slots"), (CLIENTS_AT, "clients"), (BUCKETS_AT, "buckets")]
    {
        for bad in [0, 3, u64::MAX, u64::MAX / 2 + 1] {
            // Three clients are possible.
            let bad = if at == CLIENTS_AT && bad == 3 { 1 } else { bad };
            let error = attach_with(at, &bad.to_le_bytes());
            let is_named = matches!(error, LayoutError::Geometry { field, value, .. } if field == name && value == bad);
            assert!(is_named, "{name} = {bad}: {error}");
        }
    }
}

#[test]
fn segments_that_are_too_short_are_refused() {
    let store = small(CAPACITY);
    let segments = || store.segments().expect("descriptors are left");
    let whole = size_of_file(&segments().tables);
    for bytes in [1, 100, 255, 256, 4096, whole - 4096] {
        let tables = altered(&segments().tables, bytes, 0, &[]);
        let error = refused(&store, Segments { tables, ..segments() });
        assert!(
            matches!(error, LayoutError::TooSmall { bytes: found, needed_bytes } if found == bytes && needed_bytes > bytes),
            "{error}"
        );
    }
    let doubled = (store.geometry().slots * 2).to_le_bytes();
    let larger = altered(&segments().tables, whole, SLOTS_AT, &doubled);
    let error = refused(&store, Segments { tables: larger, ..segments() });
    assert!(matches!(error, LayoutError::TooSmall { needed_bytes, .. } if needed_bytes > whole), "{error}");
    for bytes in [CAPACITY / 2, CAPACITY * 2] {
        let data = || Memfd::create("other data", bytes).expect("a segment can be made");
        let other = data().read_only().expect("it is ours");
        let error = refused(&store, Segments { data_read_only: other, ..segments() });
        assert!(
            matches!(error, LayoutError::DataSize { bytes: found, expected_bytes: CAPACITY } if found == bytes),
            "{error}"
        );
    }
}

#[test]
fn a_data_segment_that_is_not_the_readers_is_refused() {
    let store = small(CAPACITY);
    let segments = store.segments().expect("descriptors are left");
    let short = Memfd::create("short data", CAPACITY / 2).expect("a segment can be made");
    let client = store.admit(ProcessId::current(), "stranger").expect("a number is free");
    let data = short.try_clone().expect("a descriptor can be duplicated");
    let joined = Store::attach(Segments { data, ..segments }, client, small_config(CAPACITY));
    let error = joined.map(|_| ()).err();
    let is_typed = |error: &OpenError| matches!(error, OpenError::Layout(LayoutError::DataSize { bytes, .. }) if *bytes == CAPACITY / 2);
    assert!(error.as_ref().is_some_and(is_typed), "the writable data is half as long as the readable: {error:?}");
}

#[test]
fn files_that_could_shrink_are_no_segments() {
    let store = small(CAPACITY);
    let file = tempfile::tempfile().expect("a test may make a file");
    file.set_len(CAPACITY).expect("there is room on disk");
    let segments = store.segments().expect("descriptors are left");
    let client = store.admit(ProcessId::current(), "stranger").expect("a number is free");
    let joined = Store::attach(Segments { tables: file.into(), ..segments }, client, small_config(CAPACITY)).err();
    assert!(matches!(joined, Some(OpenError::Segment(_) | OpenError::Layout(LayoutError::Segment(_)))), "{joined:?}");
}

#[test]
fn an_admission_is_for_one_join() {
    let store = small(CAPACITY);
    let attach =
        |client| Store::attach(store.segments().expect("descriptors are left"), client, small_config(CAPACITY));
    let not_admitted = |client: ClientId| {
        let error = attach(client).err();
        assert!(
            matches!(error, Some(OpenError::NotAdmitted { client: number, .. }) if number == client.number),
            "{error:?}"
        );
    };
    for number in [0, 2, 31, 32, u16::MAX] {
        not_admitted(ClientId { number, generation: 1 });
    }
    let client = store.admit(ProcessId::current(), "guest").expect("a number is free");
    not_admitted(ClientId { generation: client.generation + 1, ..client });
    let guest = attach(client).expect("it was admitted");
    not_admitted(client);
    let object = guest.put(b"guest's").expect("there is room");
    assert_eq!(&*store.view_by_id(&object.id()).expect("both are in one store"), b"guest's");
    assert!(store.clients().iter().any(|info| info.label == "behaviour") && store.clients().len() == 2);
    drop(object);
    drop(guest);
    let unused = store.admit(ProcessId::current(), "never comes").expect("a number is free");
    assert!(store.dismiss(unused) && !store.dismiss(unused));
    not_admitted(unused);
    check_nothing_is_left(&store);
}

#[test]
fn a_full_table_of_clients_is_a_typed_error() {
    let store = small(CAPACITY);
    let admit = || store.admit(ProcessId::current(), "guest");
    let mut admitted: Vec<ClientId> = (0..30).map(|_| admit().expect("a number is free")).collect();
    let full = admit().err();
    assert!(matches!(full, Some(OpenError::TooManyClients { clients: 31 })), "{full:?}");
    assert!(store.dismiss(admitted.pop().expect("there are some")));
    store.reclaim();
    admit().expect("one number came back");
}

#[test]
fn a_full_table_of_objects_is_a_typed_error() {
    let store = small(CAPACITY);
    let slots = store.geometry().slots;
    let mut objects: Vec<_> = (1..slots).map(|_| store.put(b"").expect("a slot is free")).collect();
    let error = store.put(b"").unboxed().err();
    assert!(matches!(error, Some(CreateError::TooManyObjects { slots: found }) if found == slots), "{error:?}");
    let error = store.promise(&id_of(1)).unboxed().err();
    assert!(matches!(error, Some(CreateError::TooManyObjects { .. })), "{error:?}");
    let error = store.create(10, &under(id_of(1))).unboxed().err();
    assert!(matches!(error, Some(CreateError::TooManyObjects { .. })), "{error:?}");
    objects.swap_remove(1000);
    drop(store.put(b"").expect("one slot came back"));
    drop(objects);
    check_empty(&store);
}

#[test]
fn a_handle_of_an_object_that_ended_names_nothing() {
    let store = small(CAPACITY);
    let object = store.put(b"one life").expect("there is room");
    let handle = object.handle();
    assert_eq!(store.refer(handle).expect("it lives").id(), object.id());
    drop(object);
    assert!(store.refer(handle).is_none());
    let slots = store.geometry().slots as u32;
    let others: Vec<_> = (1..slots).map(|_| store.put(b"").expect("a slot is free")).collect();
    assert!(others.iter().any(|other| other.handle().slot == handle.slot), "the slot is in use again");
    assert!(store.refer(handle).is_none(), "another life of the slot");
    for slot in [0, slots, slots + 1, u32::MAX] {
        assert!(store.refer(Handle { slot, generation: 0 }).is_none());
    }
    for generation in [handle.generation + 2, u64::MAX] {
        assert!(store.refer(Handle { generation, ..handle }).is_none());
    }
    drop(others);
    check_empty(&store);
}

#[test]
fn a_store_of_an_impossible_size_is_refused() {
    for capacity_bytes in [0, u64::MAX - 70_000, store::CAPACITY_MAX + 1] {
        let error = Store::in_process(small_config(capacity_bytes)).err();
        assert!(
            matches!(error, Some(OpenError::Layout(LayoutError::Geometry { field: "capacity_bytes", .. }))),
            "{capacity_bytes}: {error:?}"
        );
    }
}

#[test]
fn ids_of_any_bytes_work_and_text_that_is_none_is_refused() {
    let store = small(CAPACITY);
    for byte in [0, 1, 0x7F, 0xFF] {
        let id = ObjectId::new([byte; 28]);
        let object = store
            .put_with(&[byte], &CreateOptions { id: Some(id), ..CreateOptions::default() })
            .expect("the id is free");
        assert_eq!(*store.view_by_id(&id).expect("it is sealed"), [byte]);
        assert_eq!(id.to_string().parse::<ObjectId>().expect("its own text"), id);
        drop(object);
    }
    for text in ["", "00", "not an id", &"g".repeat(56), &"0".repeat(57)] {
        assert!(text.parse::<ObjectId>().is_err(), "{text:?}");
    }
    check_empty(&store);
}
