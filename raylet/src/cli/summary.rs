//! `raylet summary`: how many of what there is, by name and state.
//!
//! The one thing to know: the counting is done here, over all pages, so that the raylet never looks at
//! everything at once. This file must not print single rows.

use super::list::value;
use super::table::table;
use super::{CliError, Format, SessionOptions, bytes, pages, print, print_json};
use crate::ask::{AskError, Asker};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Of what
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    session: SessionOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Tasks and calls, by what is called
    Tasks,
    /// Actors, by their class
    Actors,
    /// Objects, by where they are
    Objects,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    state: Value,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Everything, as JSON has it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Summary {
    rows: Vec<Row>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Counts and bytes by name and state. States are kept by their JSON, which has an order.
#[derive(Default)]
struct Tally(BTreeMap<(Option<String>, String), (u64, u64)>);

impl Tally {
    fn add(&mut self, name: Option<&str>, state: &impl Serialize, bytes: u64) -> bool {
        let entry = self.0.entry((name.map(str::to_owned), value(state).to_string())).or_default();
        *entry = (entry.0 + 1, entry.1 + bytes);
        true
    }

    /// The largest first.
    fn summary(self, has_bytes: bool) -> Summary {
        let row = |((name, state), (count, bytes)): ((_, String), _)| Row {
            name,
            state: serde_json::from_str(&state).expect("it was JSON"),
            count,
            bytes: has_bytes.then_some(bytes),
        };
        let mut rows: Vec<Row> = self.0.into_iter().map(row).collect();
        rows.sort_by_key(|row| Reverse((row.bytes, row.count)));
        let count = rows.iter().map(|row| row.count).sum();
        let bytes = has_bytes.then(|| rows.iter().filter_map(|row| row.bytes).sum());
        Summary { rows, count, bytes }
    }
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let mut asker = Asker::connect(&options.session.directory()?)?;
    let summary = count(&mut asker, options.what)?;
    match options.format {
        Format::Json => print_json(&summary),
        Format::Table => print(&text(options.what, &summary)),
    }
    Ok(())
}

fn count(asker: &mut Asker, what: What) -> Result<Summary, AskError> {
    let mut tally = Tally::default();
    match what {
        What::Tasks => pages::each_task(asker, |task| tally.add(Some(&task.name), &task.state, 0)),
        What::Actors => pages::each_actor(asker, |actor| tally.add(Some(&actor.class), &actor.state, 0)),
        What::Objects => pages::each_object(asker, |object| tally.add(None, &object.state, object.bytes)),
    }?;
    Ok(tally.summary(what == What::Objects))
}

fn text(what: What, summary: &Summary) -> String {
    let rows: Vec<Value> = summary.rows.iter().map(value).collect();
    let (name, columns): (_, &[&str]) = match what {
        What::Tasks => ("tasks", &["name", "state", "count"]),
        What::Actors => ("actors", &["name", "state", "count"]),
        What::Objects => ("objects", &["state", "count", "bytes"]),
    };
    let table = if rows.is_empty() { String::new() } else { table(columns, &rows) };
    let size = summary.bytes.map(|size| format!(", {}", bytes::show(size))).unwrap_or_default();
    format!("{table}{} {name}{size}\n", summary.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::inside::TaskState;

    #[test]
    fn names_and_states_are_counted() {
        let mut tally = Tally::default();
        for name in ["f", "g", "g"] {
            tally.add(Some(name), &TaskState::Running, 0);
        }
        let summary = tally.summary(false);
        assert_eq!(summary.count, 3);
        assert_eq!(summary.rows[0].name.as_deref(), Some("g"));
        let text = text(What::Tasks, &summary);
        assert!(text.starts_with("NAME") && text.ends_with("3 tasks\n"), "{text}");
        let json = value(&summary);
        assert_eq!(json["rows"][0], serde_json::json!({"name": "g", "state": "RUNNING", "count": 2}));
    }

    #[test]
    fn bytes_are_added_up() {
        let mut tally = Tally::default();
        tally.add(None, &"InMemory", 1024);
        tally.add(None, &"OnDisk", 4096);
        let summary = tally.summary(true);
        assert_eq!((summary.bytes, &summary.rows[0].state), (Some(5120), &Value::from("OnDisk")));
        assert!(text(What::Objects, &summary).ends_with("2 objects, 5.0 KiB\n"));
    }
}
