//! The harness end to end, tiny: two processes, the table and the JSON. Proves no number.

use std::process::Command;

use serde_json::Value;

/// The rows of a smoke run of works with this in their names.
fn rows(bench: &str, only: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("result.json");
    let status = Command::new(bench)
        .args(["--quick", "--no-install", "--only", only, "--output"])
        .arg(&output)
        .status()
        .expect("the harness starts");
    assert!(status.success());
    let json: Value = serde_json::from_slice(&std::fs::read(&output).expect("a result")).expect("JSON");
    json["rows"].as_array().expect("rows").clone()
}

#[test]
fn limits_of_two_processes_are_measured_and_written() {
    let rows = rows(env!("CARGO_BIN_EXE_bench-store"), "seal to get");
    let measured: Vec<_> = rows.iter().map(|row| (row["name"].as_str(), row["peer"].is_f64())).collect();
    let wanted = [(Some("seal to get hot, iceoryx2"), true), (Some("seal to get asleep, futex"), true)];
    assert_eq!(measured, wanted);
}

#[test]
fn tasks_and_their_peers_are_measured_and_written() {
    for (only, wanted) in [
        ("asleep", ["no-op task asleep, futex", "no-op task asleep, pipe"].as_slice()),
        ("neighbours", &["pair with two busy neighbours, futex"]),
        ("echo of 1 KiB", &["echo of 1 KiB by put and task, grpc"]),
    ] {
        let rows = rows(env!("CARGO_BIN_EXE_bench-tasks"), only);
        let measured: Vec<_> = rows.iter().filter(|row| row["ratio"].is_f64()).collect();
        let names: Vec<_> = measured.iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, wanted);
    }
}
