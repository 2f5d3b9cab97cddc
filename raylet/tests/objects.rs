//! Objects through a raylet: the executable, and client processes that are killed and stopped.
//!
//! The one thing to know: each test has a raylet and a directory of its own, and whatever it started
//! ends with it. A puppet is this test binary once more, as a client that does what it is told over
//! its standard streams. Nothing sleeps: a test waits for answers, or for the kernel.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_client::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Longer than anything here takes; only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);
/// Within this, whoever waits hears that the raylet is gone.
const SOON: Duration = Duration::from_secs(1);

/// The id of a test's object by number.
fn id(number: u8) -> ObjectId {
    ObjectId::new([number; 28])
}

/// A raylet process on a directory of its own.
struct Raylet {
    base: tempfile::TempDir,
}

impl Raylet {
    fn start(capacity: &str) -> Raylet {
        let raylet = Raylet { base: tempfile::tempdir().unwrap() };
        raylet.run(&["start", "--capacity", capacity, "--max-clients", "16"]);
        raylet
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raylet"));
        command.args(words).env("RAYLET_DIR", self.base.path()).env_remove("RUST_LOG");
        command.stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, command: &str) -> serde_json::Value {
        serde_json::from_str(&self.run(&[command, "--format", "json"])).unwrap()
    }

    fn directory(&self) -> PathBuf {
        self.base.path().join("default")
    }

    fn record(&self) -> raylet::session::Record {
        raylet::session::record(&self.directory()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.record().pid as i32), signal).unwrap();
    }

    fn options(&self, label: &str) -> ConnectOptions {
        ConnectOptions { label: label.to_owned(), ..ConnectOptions::at(self.directory()) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.options("test")).unwrap()
    }

    fn puppet(&self) -> Puppet {
        Puppet::start(&self.directory())
    }

    /// Ends the raylet; nothing of it may be left.
    fn stop(self) {
        let record = self.record();
        self.run(&["stop"]);
        assert_eq!(std::fs::read_dir(self.base.path()).unwrap().count(), 0);
        assert!(!record.spill_directory.exists());
        assert!(!Path::new("/dev/shm").join(&record.door).exists());
    }
}

impl Drop for Raylet {
    fn drop(&mut self) {
        // Where the test has ended it, this fails; where the test failed, it must not be left.
        let _ = self.command(&["stop", "--force"]).output();
        let _ = raylet::session::sweep_stale(self.base.path());
    }
}

/// A client in a process of its own, which is killed when this is dropped.
struct Puppet {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Puppet {
    fn start(directory: &Path) -> Puppet {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "puppet", "--nocapture"]).env("RAYLET_TEST_SESSION", directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, told) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut puppet = Puppet { child, tell, told: BufReader::new(told) };
        assert_eq!(puppet.answer(), "ready");
        puppet
    }

    fn tell(&mut self, words: &str) {
        writeln!(self.tell, "{words}").unwrap();
    }

    /// The puppet's next answer, which stands in a line of its own among those of the harness.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.told.read_line(&mut line).unwrap(), 0, "the puppet has ended");
            if let Some(answer) = line.trim_end().strip_prefix("puppet: ") {
                return answer.to_owned();
            }
        }
    }

    #[track_caller]
    fn check(&mut self, words: &str, expected: &str) {
        self.tell(words);
        assert_eq!(self.answer(), expected, "{words}");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side of [`Puppet`]; without its variable, a test of nothing.
#[test]
fn puppet() {
    let Some(directory) = std::env::var_os("RAYLET_TEST_SESSION") else {
        return;
    };
    let options = ConnectOptions { label: "puppet".to_owned(), ..ConnectOptions::at(directory) };
    let client = Client::connect(&options).unwrap();
    let mut kept = Kept::default();
    println!("\npuppet: ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        println!("\npuppet: {}", obey(&client, &mut kept, &words));
    }
}

/// What a puppet keeps, by number of the object.
#[derive(Default)]
struct Kept {
    references: HashMap<u8, ObjectRef>,
    objects: HashMap<u8, Object>,
    writers: HashMap<u8, ObjectWriter>,
}

/// One order; the answer is `ok`, or what was got, or the name of the error.
fn obey(client: &Client, kept: &mut Kept, words: &[&str]) -> String {
    let number: u8 = words[1].parse().unwrap();
    let argument = || words[2].parse::<u64>().unwrap();
    match words[0] {
        "put" => {
            let options = CreateOptions { id: Some(id(number)), ..CreateOptions::default() };
            let put = client.put_with(&vec![number; argument() as usize], &options);
            answer(put.map(|object| kept.references.insert(number, object)), |_| "ok".to_owned())
        }
        "create" => {
            let options = CreateOptions { id: Some(id(number)), ..CreateOptions::default() };
            let writer = client.create(argument(), &options);
            answer(writer.map(|writer| kept.writers.insert(number, writer)), |_| "ok".to_owned())
        }
        "seal" => {
            let mut writer = kept.writers.remove(&number).unwrap();
            writer.fill(number);
            kept.references.insert(number, writer.seal());
            "ok".to_owned()
        }
        "get" => {
            let got = client.get_by_id(&id(number), Duration::from_millis(argument()));
            answer(got, |object| {
                let text = format!("{} x {}", object.len(), object[0]);
                kept.objects.insert(number, object);
                text
            })
        }
        "release" => {
            kept.objects.remove(&number);
            kept.references.remove(&number);
            "ok".to_owned()
        }
        other => panic!("{other}"),
    }
}

fn answer<T, E: std::fmt::Debug>(outcome: Result<T, E>, show: impl FnOnce(T) -> String) -> String {
    match outcome {
        Ok(value) => show(value),
        Err(error) => {
            let text = format!("{error:?}");
            text.split([' ', '{', '(']).next().unwrap().to_owned()
        }
    }
}

/// Files in a directory and below.
fn files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// Waits until the raylet has done what it does by itself.
#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

fn holders(client: &Client, number: u8) -> usize {
    let objects = client.list();
    objects.iter().find(|object| object.id == id(number)).map_or(0, |object| object.holders.len())
}

#[test]
fn a_get_blocks_until_another_process_seals() {
    let raylet = Raylet::start("16MiB");
    let (mut maker, mut reader) = (raylet.puppet(), raylet.puppet());
    maker.check("create 1 1000", "ok");
    reader.tell("get 1 60000");
    let client = raylet.client();
    wait_until("the reader refers to what it waits for", || holders(&client, 1) == 2);
    maker.check("seal 1", "ok");
    assert_eq!(reader.answer(), "1000 x 1");
    // Of what nobody has begun as well.
    reader.tell("get 2 60000");
    wait_until("the reader has promised", || holders(&client, 2) == 1);
    maker.check("put 2 5", "ok");
    assert_eq!(reader.answer(), "5 x 2");
    reader.check("get 3 0", "NotFound");
    drop((maker, reader, client));
    raylet.stop();
}

#[test]
fn a_killed_client_holds_nothing_and_the_others_keep_theirs() {
    let raylet = Raylet::start("16MiB");
    let client = raylet.client();
    let (mut maker, mut reader) = (raylet.puppet(), raylet.puppet());
    maker.check("put 1 100000", "ok");
    maker.check("put 2 100000", "ok");
    maker.check("create 3 100000", "ok");
    reader.check("get 1 0", "100000 x 1");
    assert_eq!(client.list().len(), 3);
    maker.kill();
    wait_until("the dead one is swept", || client.tally().swept_clients == 1);
    assert_eq!((holders(&client, 1), holders(&client, 2), holders(&client, 3)), (1, 0, 0));
    assert_eq!(client.list().len(), 1);
    let got = client.get_by_id(&id(1), Duration::ZERO).unwrap();
    reader.kill();
    wait_until("the reader is swept", || client.tally().swept_clients == 2);
    assert_eq!(got[..], vec![1; 100_000]);
    drop(got);
    let usage = client.usage();
    assert_eq!((usage.used_bytes, usage.by_state.len()), (0, 0));
    drop(client);
    raylet.stop();
}

#[test]
fn a_client_that_leaves_is_swept_while_its_process_lives() {
    let raylet = Raylet::start("16MiB");
    let client = raylet.client();
    let other = raylet.client();
    assert_eq!(client.tally().clients, 3);
    drop(other.put(b"value").unwrap());
    drop(other);
    wait_until("it is swept", || client.tally().clients == 2);
    drop(client);
    raylet.stop();
}

#[test]
fn a_stopped_raylet_holds_nobody_up() {
    let raylet = Raylet::start("64MiB");
    let client = raylet.client();
    let mut other = raylet.puppet();
    let small = client.put(&[1; 1000]).unwrap();
    raylet.signal(Signal::SIGSTOP);
    // Within memory that is this client's own already, and far beyond it.
    let more: Vec<_> = (0..100).map(|_| client.put(&[2; 1000]).unwrap()).collect();
    let large = client.put(&vec![3; 32 * MIB as usize]).unwrap();
    assert_eq!(client.view(&small).unwrap()[..], [1; 1000]);
    assert_eq!(client.get(&large).unwrap().len(), 32 << 20);
    client
        .put_with(b"told", &CreateOptions { id: Some(id(1)), lifetime: Lifetime::Named, ..Default::default() })
        .unwrap();
    other.check("get 1 60000", "4 x 116");
    other.check("put 2 100000", "ok");
    let got = client.get_by_id(&id(2), LONG).unwrap();
    other.check("release 2", "ok");
    let used = client.usage().used_bytes;
    drop((more, large, got));
    assert!(client.usage().used_bytes < used - 32 * MIB);
    // Nobody new comes in, and hears so in time.
    let options = ConnectOptions { timeout: Duration::from_millis(300), ..raylet.options("late") };
    let refused = Client::connect(&options).unwrap_err();
    assert!(matches!(refused, ConnectError::NoAnswer { limit_ms: 300 }), "{refused}");
    raylet.signal(Signal::SIGCONT);
    drop(raylet.client());
    drop((other, small, client));
    raylet.stop();
}

/// Kills the raylet and returns once its lock is free: its parent is not us.
fn kill_raylet(raylet: &Raylet) {
    raylet.signal(Signal::SIGKILL);
    wait_until("the lock is free", || !raylet::session::is_held(&raylet.directory()).unwrap());
}

#[test]
fn without_a_raylet_what_is_held_stays_and_who_waits_hears_of_it() {
    let raylet = Raylet::start("8MiB");
    let client = raylet.client();
    let kept = client.put(&vec![1; MIB as usize]).unwrap();
    let view = client.get(&kept).unwrap();
    let full = [0; 6].map(|_| client.put(&vec![2; MIB as usize]).unwrap());
    let views = full.each_ref().map(|object| client.get(object).unwrap());
    let mut other = raylet.puppet();
    other.tell("get 9 3600000");
    wait_until("it waits", || holders(&client, 9) == 1);
    let mut creator = raylet.puppet();
    creator.tell("put 8 4000000");
    wait_until("it waits for room", || client.clients().iter().any(|client| client.waiting_bytes > 0));
    let started = Instant::now();
    kill_raylet(&raylet);
    assert_eq!((other.answer().as_str(), creator.answer().as_str()), ("RayletGone", "RayletGone"));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    // What is held stays readable, and what needs no raylet goes on.
    assert_eq!(view[..], vec![1; MIB as usize]);
    drop(views);
    drop(full);
    let after = client.put(b"after").unwrap();
    assert_eq!(client.view(&after).unwrap()[..], *b"after");
    let refused = Client::connect(&raylet.options("late")).unwrap_err();
    assert!(matches!(refused, ConnectError::NotRunning { .. }), "{refused}");
    // The next raylet is another store: the old one's clients keep theirs.
    raylet.run(&["start", "--capacity", "8MiB"]);
    let next = raylet.client();
    assert_ne!(next.session_id(), client.session_id());
    assert_eq!(next.job().number(), 1);
    assert!(next.list().is_empty());
    assert_eq!(client.get(&kept).unwrap()[..], vec![1; MIB as usize]);
    drop((other, creator, next, view, kept, after, client));
    raylet.stop();
}

#[test]
fn what_does_not_fit_goes_to_disk_and_comes_back() {
    let raylet = Raylet::start("16MiB");
    let client = raylet.client();
    let objects: Vec<_> = (0..48u8).map(|fill| client.put(&vec![fill; MIB as usize]).unwrap()).collect();
    let usage = client.usage();
    assert!(usage.spilled_objects >= 30, "{usage:?}");
    let spilled = files(&raylet.record().spill_directory);
    assert!(spilled >= 30, "{spilled} files");
    let status = raylet.json("status");
    assert!(status["store"]["spilled_object_count"].as_u64().unwrap() >= 30, "{status}");
    for (fill, object) in (0..48u8).zip(&objects) {
        let object = client.get(object).unwrap();
        assert!(object.len() as u64 == MIB && object.iter().all(|&byte| byte == fill), "object {fill}");
    }
    assert!(client.tally().restored_objects >= 30);
    // Another process brings one back as well.
    let number = client.put_with(&[7; 100], &CreateOptions { id: Some(id(7)), ..Default::default() }).unwrap();
    raylet.puppet().check("get 7 60000", "100 x 7");
    drop((number, objects));
    wait_until("the puppet is swept", || client.usage().used_bytes == 0);
    assert_eq!(files(&raylet.record().spill_directory), 0);
    drop(client);
    raylet.stop();
}

#[test]
fn the_command_line_tells_of_a_living_store() {
    let raylet = Raylet::start("16MiB");
    let client = raylet.client();
    let object = client.put(&[1; 5000]).unwrap();
    let mut puppet = raylet.puppet();
    puppet.check("put 2 70000", "ok");
    let view = client.get(&object).unwrap();
    let status = raylet.json("status");
    let store = &status["store"];
    assert_eq!((&store["object_count"], &store["client_count"]), (&2.into(), &3.into()));
    assert_eq!(store["capacity_bytes"], 16 * MIB);
    let parts = ["used_bytes", "unused_bytes", "free_bytes"].map(|part| store[part].as_u64().unwrap());
    assert_eq!(parts.iter().sum::<u64>(), 16 * MIB);
    assert!(raylet.run(&["status"]).contains("2 of "));
    let memory = raylet.json("memory");
    let found = memory["objects"].as_array().unwrap().iter().find(|info| info["id"] == object.id().to_string());
    let found = found.unwrap();
    assert_eq!((&found["bytes"], &found["state"]), (&5000.into(), &"InMemory".into()));
    assert_eq!((&found["reference_count"], &found["pin_count"]), (&1.into(), &1.into()));
    assert_eq!(found["holders"][0]["pid"], std::process::id());
    let text = raylet.run(&["memory"]);
    assert!(text.contains("puppet") && text.contains("2 objects, 73.2 KiB; 3 clients"), "{text}");
    kill(puppet.pid(), Signal::SIGSTOP).unwrap();
    wait_until("the listing says that it is stopped", || raylet.run(&["memory"]).contains("puppet (stopped)"));
    kill(puppet.pid(), Signal::SIGCONT).unwrap();
    let doctor = raylet.run(&["doctor"]);
    assert!(doctor.contains("sessions") && doctor.contains("none stale"), "{doctor}");
    assert!(raylet.json("doctor").as_array().unwrap().len() >= 10);
    drop((view, object, puppet, client));
    raylet.stop();
}

#[test]
fn a_number_is_free_again_when_its_client_has_died() {
    let raylet = Raylet::start("4MiB");
    let client = raylet.client();
    // More clients than there are numbers, each killed with a hold, one crowd after another.
    for _ in 0..4 {
        let crowd: Vec<_> = (0..15).map(|_| raylet.puppet()).collect();
        for (number, mut puppet) in (0..).zip(crowd) {
            puppet.check(&format!("put {number} 1000"), "ok");
            puppet.kill();
        }
    }
    wait_until("all are swept", || client.tally().swept_clients == 60);
    assert_eq!(client.usage().used_bytes, 0);
    drop(client);
    raylet.stop();
}
