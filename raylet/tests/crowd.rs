//! 4,096 client processes at once: connected, holding one object, killed.
//!
//! The one thing to know: this is a program of its own without a test harness, because it forks its
//! clients out of a process that has no thread yet, which makes them light. Each says hello over the
//! socket like any other client. Whatever happens, they end with this process.

use nix::sys::signal::Signal;
use nix::unistd::pause;
use raylet_client::{Client, ConnectOptions, CreateOptions, ObjectId, ObjectRef};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::process::{Child, may_open};

const CLIENTS: usize = 4096;
/// Open files that the raylet needs for so many, and a few of its own.
const DESCRIPTORS: u64 = 2 * CLIENTS as u64 + 100;
const OBJECT_BYTES: usize = 1 << 20;
const ID: ObjectId = ObjectId::new([7; 28]);
/// Far beyond what any step takes; only a hang reaches it.
const LONG: Duration = Duration::from_secs(300);
/// What all of it may take of the machine that runs the tests.
const MEMORY_BYTES_MAX: u64 = 24 << 30;

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    // Asked for the names of tests, or for other tests.
    if filter == "--list" || !(filter.starts_with('-') || "crowd".contains(&filter)) {
        return;
    }
    // The raylet has a socket to each client, and watches each.
    if !may_open(DESCRIPTORS) {
        return;
    }
    let base = tempfile::tempdir().expect("there is a place for temporary files");
    let raylet = Raylet::start(base.path());
    let started = Instant::now();
    // Forked before this process is a client itself: what a client forks need not say hello.
    let (told, theirs) = UnixStream::pair().expect("there are descriptors");
    let Some(crowd) = Child::fork_many(CLIENTS, || be_client(base.path(), &theirs)) else { return };
    drop(theirs);
    let maker = connect(base.path());
    let kept = make_object(&maker);
    release_all(told);
    println!("{CLIENTS} clients hold one object after {:.1?}", started.elapsed());
    check_all_hold(&maker, &raylet);
    println!("{}", memory(&maker, &crowd));
    kill_all(crowd, &maker);
    check_kept_alone(&maker);
    drop(kept);
    assert_eq!(maker.usage().used_bytes, 0, "freed with its last hold");
    assert_eq!(maker.usage().by_state.len(), 0);
    drop((maker, raylet));
    assert_eq!(std::fs::read_dir(base.path()).expect("it is ours").count(), 0, "nothing is left");
    println!("they came and went within {:.1?}", started.elapsed());
}

/// A raylet that is stopped however the test ends.
struct Raylet<'a>(&'a Path);

impl Raylet<'_> {
    fn start(base: &Path) -> Raylet<'_> {
        let raylet = Raylet(base);
        raylet.run(&["start", "--capacity", "64MiB", "--max-clients", &(CLIENTS + 1).to_string()]);
        raylet
    }

    fn run(&self, words: &[&str]) -> Vec<u8> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raylet"));
        command.args(words).env("RAYLET_DIR", self.0).env_remove("RUST_LOG");
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("it is built");
        assert!(output.status.success(), "{words:?}: {}", output.status);
        output.stdout
    }
}

impl Drop for Raylet<'_> {
    fn drop(&mut self) {
        self.run(&["stop", "--force"]);
    }
}

fn connect(base: &Path) -> Client {
    let options = ConnectOptions { timeout: LONG, ..ConnectOptions::at(base.join("default")) };
    Client::connect(&options).expect("the raylet lets everybody in")
}

/// Waits for its turn, joins, gets the object, says so, and keeps it until it is killed.
fn be_client(base: &Path, told: &UnixStream) -> i32 {
    let mut told = told;
    told.read_exact(&mut [0]).expect("the parent lives");
    let client = connect(base);
    let object = client.get_by_id(&ID, LONG).expect("it is there");
    assert_eq!((object.len(), object[OBJECT_BYTES - 1]), (OBJECT_BYTES, 7));
    told.write_all(b"!").expect("the parent lives");
    loop {
        pause();
    }
}

fn make_object(maker: &Client) -> ObjectRef {
    let options = CreateOptions { id: Some(ID), ..CreateOptions::default() };
    maker.put_with(&[7; OBJECT_BYTES], &options).expect("there is room")
}

/// Gives each client its turn, and waits until each has the object.
fn release_all(mut told: UnixStream) {
    // Those that wait for their turn keep the other end open, whatever becomes of one of them.
    told.set_read_timeout(Some(LONG)).expect("it is not zero");
    told.write_all(&[b'?'; CLIENTS]).expect("they live");
    let mut said = vec![0; CLIENTS];
    told.read_exact(&mut said).expect("each client gets the object");
    assert!(said.iter().all(|&byte| byte == b'!'));
}

fn check_all_hold(maker: &Client, raylet: &Raylet) {
    let objects = maker.list();
    assert_eq!(objects.len(), 1);
    // The maker's own reference is the one beyond.
    assert_eq!(objects[0].holders.len(), CLIENTS + 1);
    assert_eq!(objects[0].holders.iter().map(|holder| u64::from(holder.pins)).sum::<u64>(), CLIENTS as u64);
    let listing = raylet.run(&["memory", "--format", "json"]);
    let listing: serde_json::Value = serde_json::from_slice(&listing).expect("it is JSON");
    assert_eq!(listing["objects"][0]["pin_count"], CLIENTS);
    assert_eq!(listing["clients"].as_array().map(Vec::len), Some(CLIENTS + 2));
}

/// Kills all at once; returns when all of them are swept.
fn kill_all(crowd: Vec<Child>, maker: &Client) {
    let started = Instant::now();
    crowd.iter().for_each(|child| child.signal(Signal::SIGKILL));
    let killed = started.elapsed();
    // The raylet needs no reaping: a dead process counts as dead before its parent looks.
    while maker.tally().clients != 2 {
        assert!(started.elapsed() < LONG, "{:?}", maker.tally());
        std::thread::yield_now();
    }
    println!("killed within {killed:.1?}, swept after {:.1?}", started.elapsed());
    drop(crowd);
}

fn check_kept_alone(maker: &Client) {
    let tally = maker.tally();
    assert_eq!((tally.swept_clients, tally.swept_holds), (CLIENTS as u64, CLIENTS as u64));
    let objects = maker.list();
    assert_eq!((objects.len(), objects[0].holders.len()), (1, 1));
    let object = maker.get_by_id(&ID, Duration::ZERO).expect("the maker refers to it");
    assert_eq!(object[..], [7; OBJECT_BYTES]);
}

/// What all of it costs: what each client has for itself, the tables, the data.
fn memory(maker: &Client, crowd: &[Child]) -> String {
    let sample: Vec<u64> = crowd.iter().step_by(256).map(|child| own_bytes(child.pid().as_raw())).collect();
    let each = sample.iter().sum::<u64>() / sample.len() as u64;
    let tally = maker.tally();
    let all = each * CLIENTS as u64 + tally.metadata_bytes + tally.resident_bytes;
    assert!(all < MEMORY_BYTES_MAX, "{all} bytes");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (tables, data) = (mib(tally.metadata_bytes), mib(tally.resident_bytes));
    format!(
        "a client has {} KiB of its own, tables {tables:.1} MiB, data {data:.1} MiB: {:.0} MiB in all",
        each / 1024,
        mib(all)
    )
}

/// Private pages and page tables of a process.
fn own_bytes(pid: i32) -> u64 {
    let sum = |file: &str, names: &[&str]| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it lives");
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let chosen = fields.filter(|(name, _)| names.contains(name));
        let kib = chosen.map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<u64>().expect("a number"));
        kib.sum::<u64>() * 1024
    };
    sum("smaps_rollup", &["Private_Clean", "Private_Dirty"]) + sum("status", &["VmPTE"])
}
