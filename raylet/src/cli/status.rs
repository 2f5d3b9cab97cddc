//! `raylet status`: how the raylet and its store are; from the door where the raylet hangs.
//!
//! The one thing to know: a raylet that does not answer still has a door, and what stands there is
//! shown before the error. This file must not wait longer than the asker does.

use super::{CliError, Format, SessionOptions, bytes, print, print_json};
use crate::ask::{AskError, Asker};
use crate::door::{Door, DoorReport};
use crate::session;
use clap::Args;
use raylet_api::message::{Message, Status, StatusReply};
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
        Ok(status) => {
            show(options.format, &status, text);
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

fn ask(directory: &Path) -> Result<StatusReply, AskError> {
    match Asker::connect(directory)?.ask(Status {})? {
        Message::StatusReply(status) => Ok(status),
        other => Err(AskError::Unexpected { found: other.name() }),
    }
}

fn door_report(directory: &Path) -> Option<DoorReport> {
    let record = session::record(directory)?;
    Door::attach(&record.door).ok().map(|door| door.report())
}

fn show<T: serde::Serialize>(format: Format, value: &T, text: impl Fn(&T) -> String) {
    match format {
        Format::Text => print(&text(value)),
        Format::Json => print_json(value),
    }
}

fn text(status: &StatusReply) -> String {
    let (store, mut out) = (&status.store, String::new());
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<20} {value}");
    };
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
    out
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
    use raylet_api::message::StoreStatus;

    #[test]
    fn the_status_reads_as_lines_of_name_and_value() {
        let store = StoreStatus {
            used_bytes: 1 << 20,
            capacity_bytes: 2 << 30,
            counters: [("gets".to_owned(), 5)].into(),
            ..StoreStatus::default()
        };
        let status = StatusReply { raylet_pid: 77, store, ..StatusReply::default() };
        let text = text(&status);
        assert!(text.contains("pid                  77\n"), "{text}");
        assert!(text.contains("memory               1.0 MiB used of 2.0 GiB\n"), "{text}");
        assert!(text.ends_with("gets                 5\n"), "{text}");
    }
}
