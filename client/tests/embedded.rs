//! A raylet in this process, joined from within and from another process.
//!
//! The one thing to know: each test has a base directory of its own, which must be empty afterwards.
//! The other process is this test binary once more; it ends with its standard input.

use raylet_client::{Client, Config, ConnectError, ConnectOptions, GetError, JobId, TaskId};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

fn config(base: &Path) -> Config {
    Config { base: base.to_owned(), capacity_bytes: 16 << 20, max_clients: 16, ..Config::embedded() }
}

fn names(base: &Path) -> usize {
    std::fs::read_dir(base).unwrap().count()
}

#[test]
fn ids_have_the_shape_of_ray() {
    let base = tempfile::tempdir().unwrap();
    let driver = Client::embedded(&config(base.path())).unwrap();
    let (first, second) = (driver.put(b"1").unwrap(), driver.put(b"2").unwrap());
    let shape = |job: u32, put: u32| format!("{}0{job}0000000{put}000000", "ff".repeat(20));
    assert_eq!(first.id().to_string(), shape(1, 1));
    assert_eq!(second.id().to_string(), shape(1, 2));
    let options = ConnectOptions::at(driver.session_directory().unwrap());
    let other = Client::connect(&options).unwrap();
    assert_eq!(other.job(), JobId::new(2));
    assert_eq!(other.task(), TaskId::driver(other.job()));
    assert_eq!(other.put(b"3").unwrap().id().to_string(), shape(2, 1));
    assert_eq!(other.session_id(), driver.session_id());
}

#[test]
fn two_clients_of_one_process_share_objects() {
    let base = tempfile::tempdir().unwrap();
    let driver = Client::embedded(&config(base.path())).unwrap();
    let options = ConnectOptions::at(driver.session_directory().unwrap());
    let other = Client::connect(&options).unwrap();
    let object = driver.put(&[5; 100_000]).unwrap();
    let got = other.get_by_id(&object.id(), LONG).unwrap();
    drop(object);
    assert_eq!(got[..], [5; 100_000]);
    assert_eq!(other.clients().len(), 2);
    drop((got, other));
    assert_eq!(driver.usage().by_state.len(), 0);
    drop(driver);
    assert_eq!(names(base.path()), 0);
}

#[test]
fn what_is_held_outlives_the_raylet_and_waiting_ends() {
    let base = tempfile::tempdir().unwrap();
    let driver = Client::embedded(&config(base.path())).unwrap();
    let options = ConnectOptions::at(driver.session_directory().unwrap());
    let other = Client::connect(&options).unwrap();
    let object = driver.put(b"kept").unwrap();
    let got = other.get_by_id(&object.id(), LONG).unwrap();
    let missing = raylet_client::ObjectId::new([3; 28]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.get_by_id(&missing, Duration::from_secs(3600)));
        drop((object, driver));
        let ended = waiting.join().unwrap().unwrap_err();
        assert!(matches!(*ended, GetError::RayletGone), "{ended}");
    });
    assert_eq!(&got[..], b"kept");
    let refused = Client::connect(&options).unwrap_err();
    assert!(matches!(refused, ConnectError::NotRunning { .. }), "{refused}");
    assert_eq!(names(base.path()), 0);
}

/// This test binary once more, as a process that joins and reads what it is told to.
#[test]
fn another_process_reads_the_same_bytes() {
    let base = tempfile::tempdir().unwrap();
    let driver = Client::embedded(&config(base.path())).unwrap();
    let object = driver.put(b"from the driver").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "reader_process", "--nocapture"]);
    command.env("RAYLET_TEST_SESSION", driver.session_directory().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", object.id()).unwrap();
    // Read to its end: the harness of the child says more after the answer.
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("\ngot from the driver\n"), "{said}");
    assert!(child.wait().unwrap().success());
}

/// The other side of the test above; without its variable, a test of nothing.
#[test]
fn reader_process() {
    let Some(directory) = std::env::var_os("RAYLET_TEST_SESSION") else {
        return;
    };
    let client = Client::connect(&ConnectOptions::at(directory)).unwrap();
    let mut id = String::new();
    std::io::stdin().read_line(&mut id).unwrap();
    let object = client.get_by_id(&id.trim().parse().unwrap(), LONG).unwrap();
    println!("\ngot {}", String::from_utf8_lossy(&object));
}
