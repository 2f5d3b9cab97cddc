//! The executable as a shell sees it, with a raylet that has nothing to do.
//!
//! The one thing to know: each test has a session directory of its own, and whatever it started is
//! ended when the test is, even by a failure. Nothing sleeps: `start` returns when the raylet serves,
//! `stop` when nothing of it is left.

mod shell;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet::ask::Asker;
use raylet::session;
use raylet_api::message::{Message, Status};
use shell::{Shell, http, metric};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[test]
fn a_raylet_starts_answers_and_stops_without_a_trace() {
    let shell = Shell::new();
    let started = shell.check(&["start", "--capacity", "8MiB", "--max-clients", "5"], 0);
    let socket = shell.directory.join("default/socket");
    assert_eq!(started, format!("{}\n", socket.display()));
    let record = shell.record("default").unwrap();
    let status = shell.check(&["status"], 0);
    assert!(status.contains(&format!("pid                  {}\n", record.pid)), "{status}");
    assert!(status.contains("1 of 6"), "{status}");
    let json = shell.check(&["status", "--format", "json"], 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["store"]["capacity_bytes"], 8 << 20);
    let json = shell.check(&["memory", "--format", "json"], 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["objects"], serde_json::json!([]));
    assert!(shell.check(&["memory"], 0).contains("0 objects, 0 B; 1 clients"));
    assert!(Path::new("/dev/shm").join(&record.door).exists());
    assert!(shell.check(&["stop"], 0).contains("has ended"));
    assert!(record.raylet().is_dead() || !session::is_held(&shell.directory).unwrap());
    assert_eq!(shell.sessions(), 0);
    assert!(!Path::new("/dev/shm").join(&record.door).exists());
    assert!(!record.spill_directory.exists());
}

#[test]
fn a_second_start_says_who_runs() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "1MiB"], 0);
    let pid = shell.record("default").unwrap().pid;
    for words in [&["start"][..], &["start", "--foreground"]] {
        let said = shell.check(words, 4);
        let expected = format!("already running: session \"default\" belongs to pid {pid}");
        assert!(said.contains(&expected), "{said}");
    }
    shell.check(&["stop"], 0);
}

#[test]
fn commands_without_a_raylet_say_so() {
    let shell = Shell::new();
    let commands = ["status", "memory", "stop", "list tasks", "summary objects", "logs", "timeline -o -"];
    for command in commands {
        let words: Vec<_> = command.split(' ').collect();
        let said = shell.check(&words, 3);
        assert!(said.starts_with("raylet: no raylet runs at "), "{said}");
    }
    assert!(shell.check(&["start", "--session", "../x"], 2).contains("cannot name a session"));
    assert!(shell.check(&["start", "--capacity", "lots"], 2).contains("is no size"));
    assert!(shell.check(&["start", "--spill-dir", "/nowhere/at/all"], 1).contains("/nowhere"));
    assert!(shell.check(&["--help"], 0).contains("Exit codes:"));
    assert_eq!(shell.sessions(), 0);
}

#[test]
fn sessions_do_not_disturb_each_other() {
    let shell = Shell::new();
    for session in ["one", "two"] {
        shell.check(&["start", "--session", session, "--capacity", "1MiB"], 0);
    }
    let [one, two] = ["one", "two"].map(|session| shell.record(session).unwrap());
    assert_ne!((&one.door, one.pid), (&two.door, two.pid));
    shell.check(&["stop", "--session", "one"], 0);
    shell.check(&["status", "--session", "one"], 3);
    assert!(shell.check(&["status", "--session", "two"], 0).contains("session              two"));
    shell.check(&["doctor"], 0);
    shell.check(&["stop", "--session", "two"], 0);
}

#[test]
fn a_socket_path_may_be_long() {
    let shell = Shell::with_depth(200);
    let started = shell.check(&["start", "--capacity", "1MiB"], 0);
    assert!(started.len() > 200);
    shell.check(&["status"], 0);
    shell.check(&["stop"], 0);
}

#[test]
fn resources_and_limits_are_as_they_were_asked_for() {
    let shell = Shell::new();
    let words = "start --capacity 1MiB --num-cpus 1.5 --num-gpus 2 --memory 1GiB --workers-max 7";
    let mut words: Vec<_> = words.split(' ').collect();
    words.extend(["--resources", r#"{"tape": 1, "licence": 0.25}"#]);
    shell.check(&words, 0);
    let status = shell.json(&["status"]);
    let expected = serde_json::json!({
        "CPU": 1.5, "GPU": 2.0, "memory": f64::from(1 << 30), "tape": 1.0, "licence": 0.25
    });
    assert_eq!(status["work"]["capacity"], expected);
    assert_eq!((&status["work"]["used"], &status["work"]["worker_count_max"]), (&serde_json::json!({}), &7.into()));
    let text = shell.check(&["status"], 0);
    assert!(text.contains("resources            CPU: 0 used of 1.5\n"), "{text}");
    assert!(text.contains("workers              0 of 7; 0 blocked\n"), "{text}");
    for (option, value) in [("--num-cpus", "-1"), ("--resources", "tape=1"), ("--workers-max", "0")] {
        shell.check(&["start", "--session", "other", &format!("{option}={value}")], 2);
    }
}

#[test]
fn metrics_are_for_this_machine_alone() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "8MiB", "--metrics-port", "0"], 0);
    let port = shell.json(&["status"])["metrics_port"].as_u64().unwrap();
    let text = shell.check(&["status"], 0);
    assert!(text.contains(&format!("metrics              http://127.0.0.1:{port}/metrics\n")), "{text}");
    let host = format!("Host: localhost:{port}");
    let page = http(port, &["GET /metrics HTTP/1.1", &host]);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert_eq!(metric(&page, "raylet_store_capacity_bytes"), f64::from(8 << 20));
    assert_eq!(metric(&page, "raylet_clients"), 1.0);
    assert_eq!(metric(&page, "raylet_worker_deaths_total"), 0.0);
    assert!(http(port, &["GET /metrics HTTP/1.1", "Host: evil.example"]).starts_with("HTTP/1.1 403 "));
    assert!(http(port, &["POST /metrics HTTP/1.1", &host]).starts_with("HTTP/1.1 405 "));
    // The port is taken: said with its number, and nothing is left.
    let taken = port.to_string();
    let said = shell.check(&["start", "--session", "other", "--metrics-port", &taken], 1);
    assert!(said.contains(&format!("port {port} of 127.0.0.1 for metrics")), "{said}");
    assert!(shell.record("other").is_none());
}

#[test]
fn listings_of_nothing_are_empty_and_wrong_fields_are_usage() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "1MiB"], 0);
    for what in ["tasks", "actors", "objects", "workers", "placement-groups"] {
        assert_eq!(shell.json(&["list", what]), serde_json::json!([]), "{what}");
        assert_eq!(shell.check(&["list", what], 0), format!("0 {}\n", what.replace('-', " ")));
        let said = shell.check(&["list", what, "--filter", "colour=red"], 2);
        assert!(said.contains("have no field \"colour\"; there are "), "{said}");
    }
    for what in ["tasks", "actors", "objects"] {
        assert_eq!(shell.json(&["summary", what])["count"], 0);
        assert!(shell.check(&["summary", what], 0).starts_with(&format!("0 {what}")));
    }
    assert_eq!(shell.check(&["logs"], 0), "");
    assert!(shell.check(&["logs", "--worker", "7"], 1).contains("no worker has the number or pid 7"));
    assert!(shell.check(&["logs", "--actor", "a"], 1).contains("no actor that has a worker is called \"a\""));
    assert!(shell.check(&["timeline", "-o", "-"], 1).contains("--timeline"));
    shell.check(&["list", "everything"], 2);
}

#[test]
fn objects_are_listed_filtered_and_counted() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "8MiB"], 0);
    let options = raylet_client::ConnectOptions::at(shell.directory.join("default"));
    let client = raylet_client::Client::connect(&options).unwrap();
    let objects: Vec<_> = (1..=5).map(|size| client.put(&vec![7; size * 1000]).unwrap()).collect();
    let all = shell.json(&["list", "objects"]);
    assert_eq!(all.as_array().unwrap().len(), 5);
    let filter = ["list", "objects", "--filter", "bytes=3000", "--filter", "state!=OnDisk"];
    let third = shell.json(&filter);
    assert_eq!(third[0]["id"], objects[2].id().to_string());
    assert_eq!(shell.json(&["list", "objects", "--limit", "2"]).as_array().unwrap().len(), 2);
    let text = shell.check(&["list", "objects", "--limit", "2"], 0);
    assert!(text.starts_with("ID ") && text.ends_with("the first 2 objects are shown (--limit)\n"), "{text}");
    let summary = shell.json(&["summary", "objects"]);
    assert_eq!((&summary["count"], &summary["bytes"]), (&5.into(), &15_000.into()));
    drop((objects, client));
}

#[test]
fn a_timeline_without_workers_is_a_trace_all_the_same() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "1MiB", "--timeline"], 0);
    let trace: serde_json::Value = serde_json::from_str(&shell.check(&["timeline", "-o", "-"], 0)).unwrap();
    assert_eq!(trace["traceEvents"], serde_json::json!([]));
    let path = shell.base.path().join("trace.json");
    let said = shell.check(&["timeline", "-o", path.to_str().unwrap()], 0);
    assert_eq!(said, format!("0 slices in {}\n", path.display()));
    assert!(path.exists());
}

/// Waits until a killed process has let go of its session: its parent is not us, so the kernel is
/// asked through the lock.
fn wait_until_free(directory: &Path) {
    while session::is_held(directory).unwrap() {
        std::thread::yield_now();
    }
}

/// The process that sweeps after a killed raylet: its only child.
fn reaper_of(raylet: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{raylet}/task/{raylet}/children")).unwrap();
    children.trim().parse().expect("one child")
}

#[test]
fn what_a_killed_raylet_left_is_swept() {
    let shell = Shell::new();
    let spill = tempfile::tempdir().unwrap();
    let spill_text = spill.path().to_str().unwrap();
    for sweeper in [&["start", "--capacity", "1MiB"][..], &["doctor"], &["stop"]] {
        let words = ["start", "--session", "dead", "--capacity", "1MiB", "--spill-dir", spill_text];
        shell.check(&words, 0);
        let dead = shell.record("dead").unwrap();
        let door = Path::new("/dev/shm").join(&dead.door);
        assert!(door.exists() && dead.spill_directory.exists());
        // The reaper would do what is asked of others here.
        for pid in [reaper_of(dead.pid), dead.pid] {
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        }
        wait_until_free(&shell.directory.join("dead"));
        assert!(door.exists());
        shell.check(sweeper, if sweeper[0] == "stop" { 3 } else { 0 });
        assert!(!door.exists(), "{sweeper:?}");
        assert!(!dead.spill_directory.exists(), "{sweeper:?}");
        assert!(shell.record("dead").is_none(), "{sweeper:?}");
        if sweeper[0] == "start" {
            shell.check(&["stop"], 0);
        }
        assert_eq!(shell.sessions(), 0);
    }
}

#[test]
fn the_same_session_starts_again_after_a_kill() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "1MiB"], 0);
    let dead = shell.record("default").unwrap();
    kill(Pid::from_raw(dead.pid as i32), Signal::SIGKILL).unwrap();
    wait_until_free(&shell.directory.join("default"));
    shell.check(&["status"], 3);
    shell.check(&["start", "--capacity", "1MiB"], 0);
    assert!(!Path::new("/dev/shm").join(&dead.door).exists());
    shell.check(&["stop"], 0);
}

/// A raylet in the foreground that has said it serves.
fn foreground(shell: &Shell) -> Child {
    let mut command = shell.command(&["start", "--foreground", "--capacity", "1MiB"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert!(line.ends_with("/socket\n"), "{line:?}");
    child
}

#[test]
fn signals_end_a_raylet_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let shell = Shell::new();
        let mut child = foreground(&shell);
        let record = shell.record("default").unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(shell.sessions(), 0);
        assert!(!Path::new("/dev/shm").join(&record.door).exists());
    }
}

#[test]
fn a_stopped_raylet_shows_its_door_and_ends_by_force() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "1MiB"], 0);
    let record = shell.record("default").unwrap();
    kill(Pid::from_raw(record.pid as i32), Signal::SIGSTOP).unwrap();
    let output = shell.run(&["status"]);
    assert_eq!(output.status.code(), Some(5));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("does not answer; its door says"), "{out}");
    shell.check(&["stop", "--force"], 0);
    assert_eq!(shell.sessions(), 0);
    assert!(!Path::new("/dev/shm").join(&record.door).exists());
}

#[test]
fn two_starts_at_once_give_one_raylet() {
    let shell = Shell::new();
    let start = || shell.command(&["start", "--capacity", "1MiB"]).stderr(Stdio::null()).spawn();
    let children = [start().unwrap(), start().unwrap(), start().unwrap()];
    let mut codes = children.map(|mut child| child.wait().unwrap().code());
    codes.sort();
    assert_eq!(codes, [Some(0), Some(4), Some(4)]);
    let mut asker = Asker::connect(&shell.directory.join("default")).unwrap();
    assert!(matches!(asker.ask(Status {}).unwrap(), Message::StatusReply(_)));
    shell.check(&["stop"], 0);
}

#[test]
fn doctor_speaks_json() {
    let shell = Shell::new();
    let output = shell.run(&["doctor", "--format", "json"]);
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = checks.as_array().unwrap().iter().map(|check| &check["name"]).collect();
    assert!(names.contains(&&"kernel".into()) && names.contains(&&"/dev/shm".into()), "{names:?}");
}

/// A daemon that kept a caller's file open once kept the caller's lock on it, for good.
#[test]
fn a_raylet_in_the_background_keeps_nothing_of_its_callers_open() {
    let shell = Shell::new();
    // A shell, because what this process had open would go to the raylets of other tests too.
    let script = format!("exec 9>locked; exec {} start --capacity 1MiB", env!("CARGO_BIN_EXE_raylet"));
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(shell.base.path()).env("RAYLET_DIR", &shell.directory);
    assert!(command.stdin(Stdio::null()).status().unwrap().success());
    assert!(shell.base.path().join("locked").exists());
    let raylet = shell.record("default").unwrap().pid;
    for pid in [raylet, reaper_of(raylet)] {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open: Vec<PathBuf> = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        assert!(open.len() >= 4 && open.iter().all(|path| !path.ends_with("locked")), "{open:?}");
    }
    shell.check(&["stop"], 0);
}

#[test]
fn what_a_killed_raylet_left_its_reaper_removes() {
    let shell = Shell::new();
    shell.check(&["start", "--capacity", "1MiB"], 0);
    let record = shell.record("default").unwrap();
    kill(Pid::from_raw(record.pid as i32), Signal::SIGKILL).unwrap();
    while shell.sessions() > 0 {
        std::thread::yield_now();
    }
    assert!(!Path::new("/dev/shm").join(&record.door).exists());
    assert!(!record.spill_directory.exists());
}
