//! The raylet in this process: greetings, bad bytes, deaths, many connections, the door.
//!
//! The one thing to know: each test has a directory of its own and a raylet that ends with it. The
//! only waiting is for messages and for the kernel; nothing sleeps.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet::ask::{AskError, Asker};
use raylet::bare::BareKeeper;
use raylet::door::{Door, DoorReport};
use raylet::{Config, ObjectKeeper, Raylet};
use raylet_api::frame::{Decoder, FRAME_BYTES_MAX, PROTOCOL_VERSION};
use raylet_api::message::*;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const CAPACITY_BYTES: u64 = 1 << 20;
const MAX_CLIENTS: u32 = 128;

/// A raylet on a directory of its own.
struct World {
    raylet: Raylet,
    base: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World::with_clients(MAX_CLIENTS)
    }

    fn with_clients(max_clients: u32) -> World {
        let base = tempfile::tempdir().unwrap();
        let raylet = start(base.path(), max_clients);
        World { raylet, base }
    }

    fn directory(&self) -> &Path {
        self.raylet.session().directory()
    }

    fn asker(&self) -> Asker {
        Asker::connect(self.directory()).unwrap()
    }

    fn stream(&self) -> UnixStream {
        raylet_api::address::connect(self.directory()).unwrap()
    }

    fn status(&self) -> StoreStatus {
        match self.asker().ask(Status {}).unwrap() {
            Message::StatusReply(status) => status.store,
            other => panic!("{}", other.name()),
        }
    }

    fn report(&self) -> DoorReport {
        Door::attach(&self.raylet.session().record().door).unwrap().report()
    }

    /// Waits until the store says so. Each question is a round trip through the raylet, which is
    /// what lets it get on.
    fn wait_for(&self, holds: impl Fn(&StoreStatus) -> bool) {
        while !holds(&self.status()) {
            std::thread::yield_now();
        }
    }
}

fn start(base: &Path, max_clients: u32) -> Raylet {
    let config = Config {
        base: base.to_owned(),
        session: "test".to_owned(),
        capacity_bytes: CAPACITY_BYTES,
        max_clients,
        spill_parent: None,
    };
    let keeper = |config: &Config, _: &_| {
        let keeper = BareKeeper::new(config.capacity_bytes, config.max_clients)?;
        Ok(Arc::new(keeper) as Arc<dyn ObjectKeeper>)
    };
    Raylet::start(&config, keeper).unwrap()
}

fn hello(label: &str) -> Hello {
    let process = store_shm::ProcessId::current();
    Hello {
        protocol_version: u32::from(PROTOCOL_VERSION),
        pid: process.pid,
        start_ticks: process.start_ticks,
        label: label.to_owned(),
        want: Want::Store,
    }
}

fn welcome(asker: &mut Asker, label: &str) -> Welcome {
    match asker.ask(hello(label)).unwrap() {
        Message::Welcome(welcome) => welcome,
        other => panic!("{}", other.name()),
    }
}

fn refusal(asker: &mut Asker, message: impl Into<Message>) -> Error {
    match asker.ask(message) {
        Err(AskError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The greeting as a client takes it: descriptors with the first byte.
fn greet(stream: &UnixStream) -> (Welcome, Vec<OwnedFd>) {
    let bytes = raylet_api::encode(&hello("client").into()).unwrap();
    (&*stream).write_all(&bytes).unwrap();
    let (mut decoder, mut fds) = (Decoder::new(), Vec::new());
    loop {
        let mut bytes = [0; 4096];
        let came = store_shm::fd::recv_fds(stream.as_fd(), &mut bytes, 3).unwrap();
        decoder.extend(&bytes[..came.0]);
        fds.extend(came.1);
        match decoder.next_message().unwrap() {
            Some(Message::Welcome(welcome)) => return (welcome, fds),
            Some(other) => panic!("{}", other.name()),
            None => assert_ne!(came.0, 0),
        }
    }
}

#[test]
fn a_client_is_welcomed_with_its_segments() {
    let world = World::new();
    let stream = world.stream();
    let (welcome, fds) = greet(&stream);
    assert_eq!((welcome.client_index, welcome.client_generation), (0, 1));
    assert_eq!((welcome.capacity_bytes, welcome.max_clients), (CAPACITY_BYTES, MAX_CLIENTS));
    assert_eq!(welcome.session_id, world.raylet.session().record().session_id);
    assert!(Path::new(&welcome.spill_directory.unwrap()).is_dir());
    let [_tables, data, data_read_only] = fds.try_into().unwrap();
    let sizes = [&data, &data_read_only].map(|fd| nix::sys::stat::fstat(fd).unwrap().st_size);
    assert_eq!(sizes, [CAPACITY_BYTES as i64; 2]);
    assert!(nix::unistd::write(&data_read_only, b"x").is_err());
    assert_eq!(world.status().client_count, 1);
}

#[test]
fn a_client_says_hello_once_and_goodbye_once() {
    let world = World::new();
    let mut asker = world.asker();
    assert_eq!(refusal(&mut asker, Goodbye {}).code, ErrorCode::NotAdmitted);
    assert_eq!(refusal(&mut asker, ReserveHint { bytes: 1 }).code, ErrorCode::NotAdmitted);
    welcome(&mut asker, &"ä".repeat(100));
    assert_eq!(refusal(&mut asker, hello("again")).code, ErrorCode::AlreadyAdmitted);
    asker.send(ReserveHint { bytes: 7 }).unwrap();
    let Message::ClientsReply(page) = asker.ask(ListClients { cursor: 0, count_max: 9 }).unwrap() else {
        panic!("no page");
    };
    assert_eq!(page.clients[0].label, "ä".repeat(LABEL_BYTES_MAX / 2));
    assert_eq!(page.clients[0].pid, std::process::id());
    assert_eq!(asker.ask(Goodbye {}).unwrap(), Farewell {}.into());
    assert_eq!(refusal(&mut asker, Goodbye {}).code, ErrorCode::NotAdmitted);
    world.wait_for(|status| status.client_count == 0);
    assert_eq!(world.status().counters["left_client_count"], 1);
    assert_eq!(world.status().counters["reserved_bytes"], 7);
    assert_eq!(world.status().swept_client_count, 0);
    assert_eq!(world.report().clients_left, 1);
    // The row is free and the connection may be used again.
    assert_eq!(welcome(&mut asker, "back").client_generation, 2);
}

#[test]
fn the_end_of_a_connection_is_not_the_end_of_a_client() {
    let world = World::new();
    let mut asker = world.asker();
    welcome(&mut asker, "client");
    drop(asker);
    // The raylet has seen the end of that connection when only the asker's own is open.
    let connections = || match world.asker().ask(Status {}).unwrap() {
        Message::StatusReply(status) => status.connection_count,
        other => panic!("{}", other.name()),
    };
    while connections() != 1 {
        std::thread::yield_now();
    }
    assert_eq!(world.status().client_count, 1);
    assert_eq!(world.report().clients_died, 0);
}

#[test]
fn another_version_is_refused_with_both_numbers() {
    let world = World::new();
    let mut asker = world.asker();
    let error = refusal(&mut asker, Hello { protocol_version: 9, ..hello("later") });
    assert_eq!(error.code, ErrorCode::UnsupportedVersion);
    assert_eq!((error.numbers["supported"], error.numbers["found"]), (1, 9));
    // A process that took over the pid of the one that connected is not let in either.
    let error = refusal(&mut asker, Hello { start_ticks: 1, ..hello("other") });
    assert_eq!(error.code, ErrorCode::PeerInvisible);
    welcome(&mut asker, "right");
}

#[test]
fn a_full_client_table_says_how_many_there_are() {
    let world = World::with_clients(2);
    let mut askers = [world.asker(), world.asker(), world.asker()];
    let [first, second, third] = &mut askers;
    welcome(first, "first");
    welcome(second, "second");
    let error = refusal(third, hello("third"));
    assert_eq!((error.code, error.numbers["max_clients"]), (ErrorCode::TooManyClients, 2));
    first.ask(Goodbye {}).unwrap();
    world.wait_for(|status| status.client_count == 1);
    welcome(third, "third");
}

/// Sends bytes that are no frame; says what came back before the end.
fn send_bad(world: &World, bytes: &[u8]) -> Error {
    let mut stream = world.stream();
    stream.write_all(bytes).unwrap();
    let (mut answer, mut decoder) = (Vec::new(), Decoder::new());
    stream.read_to_end(&mut answer).unwrap();
    decoder.extend(&answer);
    let Some(Message::Error(error)) = decoder.next_message().unwrap() else { panic!("no error") };
    assert!(decoder.is_empty());
    error
}

#[test]
fn bad_bytes_end_their_own_connection_only() {
    let world = World::new();
    let mut bystander = world.asker();
    welcome(&mut bystander, "bystander");
    let oversize = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    let unknown_kind = [5, 0, 0, 0, 99, 0, 1, 0, 0x80];
    let no_messagepack = [5, 0, 0, 0, 1, 0, 1, 0, 0xc1];
    for bytes in [&[0xff; 64][..], &[0; 8], &oversize, &unknown_kind, &no_messagepack] {
        assert_eq!(send_bad(&world, bytes).code, ErrorCode::BadFrame, "{bytes:?}");
    }
    let another_version = [5, 0, 0, 0, 3, 0, 7, 0, 0x80];
    let error = send_bad(&world, &another_version);
    assert_eq!((error.code, error.numbers["found"]), (ErrorCode::UnsupportedVersion, 7));
    let error = refusal(&mut bystander, Farewell {});
    assert_eq!((error.code, error.numbers["kind"]), (ErrorCode::UnexpectedMessage, 4));
    bystander.ask(Status {}).unwrap();
    assert_eq!(world.report().bad_connections, 6);
    assert_eq!(world.status().client_count, 1);
}

#[test]
fn a_frame_may_come_in_single_bytes_and_several_at_once() {
    let world = World::new();
    let mut stream = world.stream();
    let bytes = raylet_api::encode(&Status {}.into()).unwrap();
    for byte in &bytes {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(&bytes.repeat(9)).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (mut answer, mut decoder) = (Vec::new(), Decoder::new());
    stream.read_to_end(&mut answer).unwrap();
    decoder.extend(&answer);
    let answers = std::iter::from_fn(|| decoder.next_message().unwrap());
    assert_eq!(answers.filter(|answer| matches!(answer, Message::StatusReply(_))).count(), 10);
}

#[test]
fn a_hundred_connections_are_served_at_once() {
    let world = World::new();
    let mut askers: Vec<_> = (0..100).map(|_| world.asker()).collect();
    for (index, asker) in (0_u32..).zip(&mut askers) {
        assert_eq!(welcome(asker, &format!("client {index}")).client_index, index);
    }
    for asker in askers.iter_mut().rev() {
        asker.ask(Status {}).unwrap();
    }
    let mut pages = Vec::new();
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let Message::ClientsReply(page) = askers[0].ask(ListClients { cursor: from, count_max: 30 }).unwrap() else {
            panic!("no page");
        };
        pages.push(page.clients.len());
        cursor = page.next_cursor;
    }
    assert_eq!(pages, [30, 30, 30, 10]);
    assert_eq!(world.report().clients_admitted, 100);
}

/// This test binary once more, as a client in a process of its own. It says when it is welcome and
/// then waits to be killed, or for the end of its standard input.
fn spawn_client(directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "client_process", "--nocapture"]);
    command.env("RAYLET_TEST_DIRECTORY", directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = Vec::new();
    let stdout = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"welcome\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        said.extend(byte);
    }
    child
}

/// The other side of [`spawn_client`]; without its variable, a test of nothing.
#[test]
fn client_process() {
    let Some(directory) = std::env::var_os("RAYLET_TEST_DIRECTORY") else {
        return;
    };
    let mut asker = Asker::connect(Path::new(&directory)).unwrap();
    welcome(&mut asker, "process");
    println!("welcome");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn a_killed_client_is_given_up_by_the_kernels_word() {
    let world = World::new();
    let mut children = [spawn_client(world.directory()), spawn_client(world.directory())];
    assert_eq!(world.status().client_count, 2);
    children[0].kill().unwrap();
    world.wait_for(|status| status.client_count == 1);
    // Not reaped yet: a dead process counts as dead before its parent looks.
    children[0].wait().unwrap();
    // A stopped one is not dead, and nobody waits for it.
    let stopped = Pid::from_raw(children[1].id() as i32);
    kill(stopped, Signal::SIGSTOP).unwrap();
    welcome(&mut world.asker(), "third");
    assert_eq!(world.status().client_count, 2);
    kill(stopped, Signal::SIGCONT).unwrap();
    // An end without goodbye is one, however polite.
    drop(children[1].stdin.take());
    children[1].wait().unwrap();
    world.wait_for(|status| status.client_count == 1);
    assert_eq!((world.status().swept_client_count, world.report().clients_died), (2, 2));
}

#[test]
fn a_raylet_ends_on_request_and_leaves_nothing() {
    let World { raylet, base } = World::new();
    let door = raylet.session().record().door.clone();
    let seen = Door::attach(&door).unwrap();
    let mut asker = Asker::connect(raylet.session().directory()).unwrap();
    welcome(&mut asker, "client");
    assert_eq!(asker.ask(Shutdown {}).unwrap(), Ending { client_count: 1 }.into());
    raylet.wait().unwrap();
    assert!(matches!(asker.receive(), Err(AskError::Closed)));
    assert!(seen.report().ending);
    assert!(Door::attach(&door).is_err());
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    // And the session can be had again at once.
    drop(start(base.path(), 1));
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}
