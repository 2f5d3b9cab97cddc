//! `raylet status`: how the raylet and its store are; from the door where the raylet hangs.
//!
//! The one thing to know: a raylet that does not answer still has a door, and what stands there is
//! shown before the error. This file must not wait longer than the asker does.

use super::table::printable;
use super::{CliError, Format, SessionOptions, bytes, print, print_json};
use crate::ask::{AskError, Asker};
use crate::door::{Door, DoorReport};
use crate::session;
use clap::Args;
use raylet_api::Demand;
use raylet_api::inside::{JobInfo, Summary, SummaryReply, in_wholes};
use raylet_api::message::{Message, Status, StatusReply};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    session: SessionOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let directory = options.session.directory()?;
    match ask(&directory) {
        Ok(whole) => {
            show(options.format, &whole, text);
            Ok(())
        }
        Err(error) => {
            if let (AskError::NoAnswer { .. }, Some(report)) = (&error, door_report(&directory)) {
                show(options.format, &report, door_text);
            }
            Err(error.into())
        }
    }
}

/// Everything, as JSON has it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    status: StatusReply,
    work: SummaryReply,
}

pub(super) fn ask(directory: &Path) -> Result<Whole, AskError> {
    let mut asker = Asker::connect(directory)?;
    let status = match asker.ask(Status {})? {
        Message::StatusReply(status) => status,
        other => return Err(AskError::Unexpected { found: other.name() }),
    };
    match asker.ask(Summary {})? {
        Message::SummaryReply(work) => Ok(Whole { status, work }),
        other => Err(AskError::Unexpected { found: other.name() }),
    }
}

fn door_report(directory: &Path) -> Option<DoorReport> {
    let record = session::record(directory)?;
    Door::attach(&record.door).ok().map(|door| door.report())
}

fn show<T: serde::Serialize>(format: Format, value: &T, text: impl Fn(&T) -> String) {
    match format {
        Format::Table => print(&text(value)),
        Format::Json => print_json(value),
    }
}

fn text(whole: &Whole) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<20} {value}");
    };
    store_lines(&whole.status, &mut line);
    work_lines(&whole.work, &mut line);
    out
}

fn store_lines(status: &StatusReply, line: &mut impl FnMut(&str, String)) {
    let store = &status.store;
    line("session", status.session.clone());
    line("pid", status.raylet_pid.to_string());
    line("up", format!("{:.1} s", status.uptime_ms as f64 / 1e3));
    let (used, capacity) = (bytes::show(store.used_bytes), bytes::show(store.capacity_bytes));
    line("memory", format!("{used} used of {capacity}"));
    let (resident, metadata) = (bytes::show(store.resident_bytes), bytes::show(store.metadata_bytes));
    line("", format!("{} free", bytes::show(store.free_bytes)));
    line("", format!("{resident} resident, {metadata} more of tables"));
    line("objects", format!("{} of {} slots", store.object_count, store.slot_count));
    let spilled = bytes::show(store.spilled_bytes);
    line("on disk", format!("{} objects, {spilled}", store.spilled_object_count));
    let (clients, max) = (store.client_count, store.max_clients);
    line("clients", format!("{clients} of {max}, the raylet is one"));
    let (swept, holds) = (store.swept_client_count, store.swept_hold_count);
    line("swept", format!("{swept} clients, {holds} holds"));
    let bad = status.bad_connection_count;
    line("connections", format!("{}, {bad} closed for bad bytes", status.connection_count));
    for (name, value) in &store.counters {
        line(name, value.to_string());
    }
    if let Some(port) = status.metrics_port {
        line("metrics", format!("http://127.0.0.1:{port}/metrics"));
    }
}

fn work_lines(work: &SummaryReply, line: &mut impl FnMut(&str, String)) {
    let mut head = "resources";
    for (name, &capacity) in &work.capacity {
        line(std::mem::take(&mut head), amount(name, capacity, &work.used));
    }
    let live = work.submitted_task_count.saturating_sub(work.ended_task_count);
    let pending = live.saturating_sub(work.running_task_count) + work.queued_record_count;
    let running = work.running_task_count + work.claimed_record_count;
    line("tasks", format!("{running} running, {pending} pending"));
    let workers: u64 = work.workers.values().sum();
    let (each, max, blocked) = (states(&work.workers), work.worker_count_max, work.blocked_worker_count);
    line("workers", format!("{workers} of {max}{each}; {blocked} blocked"));
    line("actors", format!("{}{}", work.actors.values().sum::<u64>(), states(&work.actors)));
    line("placement groups", format!("{}{}", work.groups.values().sum::<u64>(), states(&work.groups)));
    line("jobs", work.jobs.len().to_string());
    for job in &work.jobs {
        line("", job_text(job));
    }
    for (name, value) in &work.counters {
        line(name, value.to_string());
    }
}

/// `CPU: 1.5 used of 2`; memory in bytes.
fn amount(name: &str, capacity: u64, used: &Demand) -> String {
    let used = used.get(name).copied().unwrap_or(0);
    match name {
        "memory" => format!("{name}: {} used of {}", bytes::show(used), bytes::show(capacity)),
        _ => format!("{}: {} used of {}", printable(name), in_wholes(name, used), in_wholes(name, capacity)),
    }
}

/// `: 2 idle, 1 leased`, or nothing.
fn states<T: Serialize>(counts: &BTreeMap<T, u64>) -> String {
    let name = |state: &T| match serde_json::to_value(state) {
        Ok(Value::String(name)) => name.to_lowercase().replace('_', " "),
        _ => "unknown".to_owned(),
    };
    let each: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {}", name(state))).collect();
    if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) }
}

fn job_text(job: &JobInfo) -> String {
    let driver = match (job.has_left, job.pid) {
        (true, _) => "its driver has left".to_owned(),
        (false, Some(pid)) => format!("driver pid {pid}"),
        (false, None) => "driver unknown".to_owned(),
    };
    format!("job {}: {driver}, {} parts", job.job, job.part_count)
}

fn door_text(report: &DoorReport) -> String {
    format!(
        "the raylet (pid {}) does not answer; its door says:\n\
         state            {}\n\
         capacity         {}\n\
         clients          {}, {} ever admitted, {} swept with {} holds\n\
         objects          {} spilled, {} restored, {} evicted\n\
         resident         {}\n\
         connections      {}, {} closed for bad bytes\n\
         requests         {}\n",
        report.raylet_pid,
        if report.ending { "ending" } else { "serving" },
        bytes::show(report.capacity_bytes),
        report.clients,
        report.clients_admitted,
        report.clients_swept,
        report.holds_swept,
        report.objects_spilled,
        report.objects_restored,
        report.objects_evicted,
        bytes::show(report.resident_bytes),
        report.connections,
        report.bad_connections,
        report.requests,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::inside::{ActorState, WorkerState};
    use raylet_api::message::StoreStatus;

    #[test]
    fn the_status_reads_as_lines_of_name_and_value() {
        let store = StoreStatus {
            used_bytes: 1 << 20,
            capacity_bytes: 2 << 30,
            counters: [("gets".to_owned(), 5)].into(),
            ..StoreStatus::default()
        };
        let status = StatusReply { raylet_pid: 77, store, metrics_port: Some(9000), ..StatusReply::default() };
        let work = SummaryReply {
            capacity: [("CPU".to_owned(), 20_000), ("memory".to_owned(), 4096)].into(),
            used: [("CPU".to_owned(), 15_000)].into(),
            workers: [(WorkerState::Idle, 2), (WorkerState::Actor, 1)].into(),
            worker_count_max: 64,
            actors: [(ActorState::PendingCreation, 1)].into(),
            jobs: vec![JobInfo { job: 1, pid: Some(9), has_left: false, part_count: 3 }],
            ..SummaryReply::default()
        };
        let text = text(&Whole { status, work });
        for line in [
            "pid                  77",
            "memory               1.0 MiB used of 2.0 GiB",
            "gets                 5",
            "metrics              http://127.0.0.1:9000/metrics",
            "resources            CPU: 1.5 used of 2",
            "                     memory: 0 B used of 4.0 KiB",
            "workers              3 of 64: 2 idle, 1 actor; 0 blocked",
            "actors               1: 1 pending creation",
            "jobs                 1",
            "                     job 1: driver pid 9, 3 parts",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in {text}");
        }
    }
}
