//! The harness end to end, tiny: two processes, the table and the JSON. Proves no number.

use std::process::Command;

use serde_json::Value;

#[test]
fn limits_of_two_processes_are_measured_and_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("store.json");
    let status = Command::new(env!("CARGO_BIN_EXE_bench-store"))
        .args(["--quick", "--no-install", "--only", "seal to get", "--output"])
        .arg(&output)
        .status()
        .expect("the harness starts");
    assert!(status.success());
    let json: Value = serde_json::from_slice(&std::fs::read(&output).expect("a result")).expect("JSON");
    let rows = json["rows"].as_array().expect("rows");
    let measured: Vec<_> = rows.iter().map(|row| (row["name"].as_str(), row["peer"].is_f64())).collect();
    let wanted = [(Some("seal to get hot, iceoryx2"), true), (Some("seal to get asleep, futex"), true)];
    assert_eq!(measured, wanted);
}
