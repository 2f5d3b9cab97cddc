//! The executable as a shell sees it, with a raylet that has work.
//!
//! The one thing to know: this test's own executable is the driver, so workers are forked from it, and
//! what they run waits for a gate: a file whose lock the test holds. Nothing sleeps: a listing is asked
//! for until it says what it has to, with a bound that only a hang reaches.

mod shell;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_client::prelude::*;
use raylet_client::profile_event;
use serde_json::{Value, json};
use shell::{Shell, http, metric};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Says so, then waits until the gate is open.
#[remote]
fn pass(gate: String, number: u64) -> std::io::Result<u32> {
    println!("at the gate: {number}");
    let _event = profile_event("waiting");
    File::open(gate)?.lock_shared()?;
    Ok(std::process::id())
}

struct Porter;

#[remote]
impl Porter {
    fn new() -> Porter {
        println!("the porter is there");
        Porter
    }

    fn pass(&mut self, gate: String) -> std::io::Result<u32> {
        println!("the porter is at the gate");
        File::open(gate)?.lock_shared()?;
        Ok(std::process::id())
    }
}

/// What tasks wait at; open once dropped.
struct Gate {
    path: String,
    _file: File,
}

impl Gate {
    fn new(shell: &Shell, name: &str) -> Gate {
        let path = shell.base.path().join(name);
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        Gate { path: path.to_str().unwrap().to_owned(), _file: file }
    }
}

fn start(shell: &Shell, more: &[&str]) {
    let words = ["start", "--capacity", "64MiB", "--num-cpus", "2"];
    let words: Vec<&str> = words.into_iter().chain(more.iter().copied()).collect();
    shell.check(&words, 0);
}

fn join(shell: &Shell, transport: Transport) -> Raylet {
    let address = shell.directory.join("default").to_str().unwrap().to_owned();
    let config =
        Config { address: Some(address), transport: Some(transport), log_to_driver: false, ..Config::default() };
    Raylet::init(config).unwrap()
}

/// Asks until the rows are as they have to be.
#[track_caller]
fn rows_when(shell: &Shell, words: &[&str], is_right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let rows = shell.json(words);
        let rows = rows.as_array().unwrap();
        if is_right(rows) {
            return rows.clone();
        }
        assert!(started.elapsed() < LONG, "{words:?}: {rows:?}");
    }
}

#[track_caller]
fn text_when(shell: &Shell, words: &[&str], is_right: impl Fn(&str) -> bool) -> String {
    let started = Instant::now();
    loop {
        let text = shell.check(words, 0);
        if is_right(&text) {
            return text;
        }
        assert!(started.elapsed() < LONG, "{words:?}: {text}");
    }
}

fn count(rows: &[Value], field: &str, value: &str) -> usize {
    rows.iter().filter(|row| row[field] == value).count()
}

fn tasks_are_listed(transport: Transport, waiting: &str, worker_state: &str) {
    let shell = Shell::new();
    start(&shell, &[]);
    let ray = join(&shell, transport);
    let gate = Gate::new(&shell, "gate");
    let passed: Vec<_> = (0..4).map(|number| pass::remote(&ray, &gate.path, number).unwrap()).collect();
    let is_right = |rows: &[Value]| count(rows, "state", "RUNNING") == 2 && count(rows, "state", waiting) == 2;
    let tasks = rows_when(&shell, &["list", "tasks"], is_right);
    for task in &tasks {
        assert!(task["name"].as_str().unwrap().ends_with("pass"), "{task}");
        assert_eq!((&task["caller_pid"], &task["job"]), (&std::process::id().into(), &1.into()), "{task}");
        assert_eq!(task["demand"], json!({"CPU": 1.0}), "{task}");
        let is_running = task["state"] == "RUNNING";
        assert_eq!((task["pid"].is_number(), task["worker"].is_number()), (is_running, is_running), "{task}");
    }
    let running = shell.json(&["list", "tasks", "--filter", "state=running", "--limit", "1"]);
    assert_eq!(running.as_array().unwrap().len(), 1);
    let summary = shell.json(&["summary", "tasks"]);
    assert_eq!((&summary["count"], summary["rows"].as_array().unwrap().len()), (&4.into(), 2));
    let text = shell.check(&["list", "tasks"], 0);
    assert!(text.starts_with("TASK ") && text.ends_with("4 tasks\n"), "{text}");
    let workers = rows_when(&shell, &["list", "workers"], |rows| count(rows, "state", worker_state) == 2);
    let busy = |worker: &&Value| worker["state"] == worker_state;
    assert!(workers.iter().filter(busy).all(|worker| worker["demand"] == json!({"CPU": 1.0})), "{workers:?}");
    let status = shell.json(&["status"]);
    assert_eq!(status["work"]["used"], json!({"CPU": 2.0}));
    assert_eq!(status["work"]["jobs"][0]["pid"], std::process::id());
    drop(gate);
    let pids = ray.get_all(&passed).unwrap();
    rows_when(&shell, &["list", "tasks"], <[Value]>::is_empty);
    let listed: Vec<_> = workers.iter().map(|worker| worker["pid"].clone()).collect();
    assert!(pids.iter().all(|pid| listed.contains(&json!(pid))), "{pids:?} {listed:?}");
}

#[test]
fn tasks_on_leased_workers_are_listed() {
    tasks_are_listed(Transport::Direct, "QUEUED", "LEASED");
}

#[test]
fn tasks_through_the_raylet_are_listed() {
    tasks_are_listed(Transport::Raylet, "PENDING_NODE_ASSIGNMENT", "TASK");
}

#[test]
fn actors_and_their_calls_are_listed_with_their_logs() {
    let shell = Shell::new();
    start(&shell, &[]);
    let ray = join(&shell, Transport::Direct);
    let gate = Gate::new(&shell, "gate");
    let porter = Porter::options(Options::new().name("gerda")).remote(&ray).unwrap();
    let passed = porter.pass(&gate.path).unwrap();
    let is_there = |rows: &[Value]| count(rows, "state", "RUNNING") == 1;
    let calls = rows_when(&shell, &["list", "tasks"], is_there);
    let actors = rows_when(&shell, &["list", "actors"], |rows| count(rows, "state", "ALIVE") == 1);
    let actor = &actors[0];
    assert_eq!((&actor["name"], &actor["restart_count"]), (&"gerda".into(), &0.into()));
    assert!(actor["class"].as_str().unwrap().ends_with("Porter"), "{actor}");
    assert_eq!((&calls[0]["actor"], &calls[0]["pid"]), (&actor["actor"], &actor["pid"]));
    let summary = shell.json(&["summary", "actors"]);
    assert_eq!((&summary["count"], &summary["rows"][0]["state"]), (&1.into(), &"ALIVE".into()));
    let log = text_when(&shell, &["logs", "--actor", "gerda"], |text| text.contains("gate"));
    assert_eq!(log, "the porter is there\nthe porter is at the gate\n");
    let (worker, pid) = (actor["worker"].to_string(), actor["pid"].to_string());
    for id in [&worker, &pid] {
        assert_eq!(shell.check(&["logs", "--worker", id, "--tail", "1"], 0), "the porter is at the gate\n");
    }
    let label = format!("(worker {worker} pid={pid}) the porter is there\n");
    assert!(shell.check(&["logs"], 0).contains(&label));
    drop(gate);
    assert_eq!(ray.get(&passed).unwrap().to_string(), pid);
    ray.kill(&porter);
    let dead = rows_when(&shell, &["list", "actors"], |rows| count(rows, "state", "DEAD") == 1);
    assert_eq!((&dead[0]["death_cause"], &dead[0]["pid"]), (&"it was killed".into(), &Value::Null));
}

#[test]
fn placement_groups_are_listed() {
    let shell = Shell::new();
    start(&shell, &["--resources", r#"{"tape": 1}"#]);
    let ray = join(&shell, Transport::Direct);
    let bundles = [Options::new().num_cpus(0.5), Options::new().num_cpus(0).resource("tape", 1.0)];
    let group = ray.placement_group(&bundles, Strategy::Spread).unwrap();
    ray.get(&group.ready()).unwrap();
    let groups = shell.json(&["list", "placement-groups"]);
    assert_eq!((&groups[0]["state"], &groups[0]["strategy"]), (&"CREATED".into(), &"SPREAD".into()));
    assert_eq!((&groups[0]["bundles"][0], &groups[0]["bundle_count"]), (&json!({"CPU": 0.5}), &2.into()));
    assert_eq!(shell.json(&["status"])["work"]["used"], json!({"CPU": 0.5, "tape": 1.0}));
}

#[test]
fn metrics_count_work_and_deaths() {
    let shell = Shell::new();
    start(&shell, &["--metrics-port", "0"]);
    let port = shell.json(&["status"])["metrics_port"].as_u64().unwrap();
    let page = || http(port, &["GET /metrics HTTP/1.1", &format!("Host: 127.0.0.1:{port}")]);
    let ray = join(&shell, Transport::Direct);
    let gate = Gate::new(&shell, "gate");
    let options = Options::new().max_retries(1);
    let passed = pass::options(options).remote(&ray, &gate.path, 1).unwrap();
    let running = rows_when(&shell, &["list", "tasks"], |rows| count(rows, "state", "RUNNING") == 1);
    let found = page();
    assert_eq!(metric(&found, "raylet_tasks{state=\"RUNNING\"}"), 1.0);
    assert_eq!(metric(&found, "raylet_resource_used{resource=\"CPU\"}"), 1.0);
    let deaths = metric(&found, "raylet_worker_deaths_total");
    let pid = running[0]["pid"].as_i64().unwrap() as i32;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let again = |rows: &[Value]| rows.iter().any(|row| row["state"] == "RUNNING" && row["pid"] != pid);
    let again = rows_when(&shell, &["list", "tasks"], again);
    assert_eq!(again[0]["attempts"], 2, "{again:?}");
    assert_eq!(metric(&page(), "raylet_worker_deaths_total"), deaths + 1.0);
    drop(gate);
    ray.get(&passed).unwrap();
}

#[test]
fn a_log_is_followed_until_the_raylet_ends() {
    let shell = Shell::new();
    start(&shell, &[]);
    let mut command = shell.command(&["logs", "--follow"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let ray = join(&shell, Transport::Direct);
    let gate = Gate::new(&shell, "gate");
    let path = gate.path.clone();
    drop(gate);
    for number in 0..3 {
        ray.get(&pass::remote(&ray, &path, number).unwrap()).unwrap();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("(worker ") && line.ends_with(&format!(") at the gate: {number}")), "{line}");
    }
    drop(ray);
    shell.check(&["stop"], 0);
    assert!(lines.next().is_none());
    assert!(follower.wait().unwrap().success());
}

/// A slice of the trace: when, and until when.
fn span(event: &Value) -> (u64, u64) {
    let (start, length) = (event["ts"].as_u64().unwrap(), event["dur"].as_u64().unwrap());
    (start, start + length)
}

/// Mechanism 28: what a program marks itself stands in the timeline, within its task.
#[test]
fn a_timeline_shows_tasks_with_what_they_marked() {
    let shell = Shell::new();
    start(&shell, &["--timeline"]);
    let ray = join(&shell, Transport::Direct);
    let gate = Gate::new(&shell, "gate");
    let path = gate.path.clone();
    drop(gate);
    drop(profile_event("of the driver"));
    let passed: Vec<_> = (0..10).map(|number| pass::remote(&ray, &path, number).unwrap()).collect();
    let pids = ray.get_all(&passed).unwrap();
    let porter = Porter::remote(&ray).unwrap();
    let porter_pid = ray.get(&porter.pass(&path).unwrap()).unwrap();
    let trace: Value = serde_json::from_str(&shell.check(&["timeline", "-o", "-"], 0)).unwrap();
    let slices: Vec<_> = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").collect();
    let of_pid = |pid: u32| slices.iter().filter(move |slice| slice["pid"] == pid);
    let is_task = |slice: &&&Value| slice["name"].as_str().unwrap().ends_with("work::pass");
    let tasks: Vec<_> = slices.iter().filter(is_task).collect();
    assert_eq!(tasks.len(), 10, "{slices:?}");
    assert!(tasks.iter().all(|slice| pids.iter().any(|pid| slice["pid"] == *pid)));
    let waits: Vec<_> = slices.iter().filter(|slice| slice["name"] == "waiting").collect();
    assert_eq!(waits.len(), 10);
    for wait in waits {
        assert_eq!(wait["cat"], "profile");
        let (start, end) = span(wait);
        let is_around = |task: &&&Value| task["pid"] == wait["pid"] && span(task).0 <= start && end <= span(task).1;
        let around: Vec<_> = tasks.iter().copied().filter(|task| is_around(task)).collect();
        assert!(!around.is_empty() && around.iter().all(|task| task["tid"] == wait["tid"]), "{wait} {around:?}");
    }
    assert!(of_pid(porter_pid).any(|slice| slice["name"].as_str().unwrap().ends_with("Porter::pass")), "{slices:?}");
    assert_eq!(of_pid(std::process::id()).filter(|slice| slice["name"] == "of the driver").count(), 1);
    drop(porter);
}
