//! The raylet in this process: greetings, admissions, bad bytes, many connections, the door.
//!
//! The one thing to know: each test has a directory of its own and a raylet that ends with it. The
//! only waiting is for messages and for the kernel; nothing sleeps.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet::ask::{AskError, Asker};
use raylet::door::{Door, DoorReport};
use raylet::{Config, Raylet};
use raylet_api::frame::{Decoder, FRAME_BYTES_MAX, PROTOCOL_VERSION};
use raylet_api::message::*;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
        ..Config::default()
    };
    Raylet::start(&config).unwrap()
}

fn hello(label: &str) -> Hello {
    let process = store_shm::ProcessId::current();
    Hello {
        protocol_version: u32::from(PROTOCOL_VERSION),
        pid: process.pid,
        start_ticks: process.start_ticks,
        label: label.to_owned(),
        ..Hello::default()
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
    // Number 0 is nobody's, 1 the raylet's.
    assert_eq!((welcome.client_index, welcome.client_generation, welcome.job), (2, 1, 1));
    assert_eq!((welcome.capacity_bytes, welcome.max_clients), (CAPACITY_BYTES, MAX_CLIENTS + 1));
    assert_eq!(welcome.session_id, world.raylet.session().record().session_id);
    assert!(Path::new(&welcome.spill_directory.unwrap()).is_dir());
    let [_tables, data, data_read_only] = fds.try_into().unwrap();
    let sizes = [&data, &data_read_only].map(|fd| nix::sys::stat::fstat(fd).unwrap().st_size);
    assert_eq!(sizes, [CAPACITY_BYTES as i64; 2]);
    assert!(nix::unistd::write(&data_read_only, b"x").is_err());
    assert_eq!(world.status().client_count, 2);
}

#[test]
fn a_connection_says_hello_once() {
    let world = World::new();
    let mut asker = world.asker();
    welcome(&mut asker, "first");
    assert_eq!(refusal(&mut asker, hello("again")).code, ErrorCode::AlreadyAdmitted);
    assert_eq!(world.status().client_count, 2);
}

#[test]
fn an_admission_is_taken_back_with_its_connection() {
    let world = World::new();
    let mut asker = world.asker();
    let first = welcome(&mut asker, "never joins");
    drop(asker);
    world.wait_for(|status| status.client_count == 1);
    let again = welcome(&mut world.asker(), "next");
    assert_eq!(again.client_index, first.client_index);
    assert_eq!(again.client_generation, first.client_generation + 1);
    assert_eq!(again.job, first.job + 1);
    assert_eq!(world.report().clients_admitted, 2);
}

#[test]
fn who_sees_itself_under_another_pid_is_not_let_in() {
    let world = World::new();
    let stranger = Hello { pid: 1, ..hello("in a namespace of its own") };
    assert_eq!(refusal(&mut world.asker(), stranger).code, ErrorCode::PeerInvisible);
    assert_eq!(world.status().client_count, 1);
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
    let mut askers = vec![world.asker(), world.asker(), world.asker()];
    welcome(&mut askers[0], "first");
    welcome(&mut askers[1], "second");
    let error = refusal(&mut askers[2], hello("third"));
    assert_eq!((error.code, error.numbers["max_clients"]), (ErrorCode::TooManyClients, 3));
    drop(askers.remove(0));
    world.wait_for(|status| status.client_count == 2);
    welcome(&mut askers[1], "third");
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
    let error = refusal(&mut bystander, Ending { client_count: 0 });
    assert_eq!((error.code, error.numbers["kind"]), (ErrorCode::UnexpectedMessage, 10));
    bystander.ask(Status {}).unwrap();
    assert_eq!(world.report().bad_connections, 6);
    assert_eq!(world.status().client_count, 2);
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
    for (index, asker) in (2_u32..).zip(&mut askers) {
        assert_eq!(welcome(asker, &format!("client {index}")).client_index, index);
    }
    for asker in askers.iter_mut().rev() {
        asker.ask(Status {}).unwrap();
    }
    assert_eq!(world.status().client_count, 101);
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
fn a_process_that_dies_before_it_joins_is_swept() {
    let world = World::new();
    let mut child = spawn_client(world.directory());
    assert_eq!(world.status().client_count, 2);
    // A stopped process is not dead, and nobody waits for it.
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    welcome(&mut world.asker(), "bystander");
    world.wait_for(|status| status.client_count == 2);
    child.kill().unwrap();
    world.wait_for(|status| status.client_count == 1);
    // Not reaped until here: a dead process counts as dead before its parent looks.
    child.wait().unwrap();
    assert_eq!(world.status().swept_client_count, 2);
}

#[test]
fn a_raylet_ends_on_request_and_leaves_nothing() {
    let World { raylet, base } = World::new();
    let door = raylet.session().record().door.clone();
    let seen = Door::attach(&door).unwrap();
    let mut asker = Asker::connect(raylet.session().directory()).unwrap();
    welcome(&mut asker, "client");
    assert_eq!(asker.ask(Shutdown {}).unwrap(), Ending { client_count: 2 }.into());
    raylet.wait().unwrap();
    assert!(matches!(asker.receive(), Err(AskError::Closed)));
    assert!(seen.report().ending);
    assert!(Door::attach(&door).is_err());
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    // And the session can be had again at once.
    drop(start(base.path(), 1));
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}
