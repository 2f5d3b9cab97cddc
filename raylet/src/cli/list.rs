//! `raylet list`: rows of what there is.
//!
//! The one thing to know: a row's fields have the names that JSON shows, in the table and in
//! `--filter`; these names stay. Filtering is done here, page by page. This file must not count.

use super::table::{plain, table};
use super::{CliError, Format, SessionOptions, pages, print, print_json};
use crate::ask::{AskError, Asker};
use clap::{Args, ValueEnum};
use raylet_api::ids::{ObjectId, TaskId};
use raylet_api::inside::*;
use raylet_api::message::{ObjectInfo, ObjectState};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// Rows of a table where nobody says otherwise.
const LIMIT: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Rows of what
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    session: SessionOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How many rows at most [default: 100 in a table, all as JSON]
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Only rows whose field has this value, or with != another; several must all hold
    #[arg(long, value_name = "FIELD=VALUE", value_parser = parse_filter)]
    filter: Vec<Filter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Tasks and calls of actors that have not ended
    Tasks,
    /// Actors, for a while also dead ones
    Actors,
    /// Objects in the store
    Objects,
    /// Worker processes
    Workers,
    /// Reserved resources
    PlacementGroups,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Tasks => "tasks",
            What::Actors => "actors",
            What::Objects => "objects",
            What::Workers => "workers",
            What::PlacementGroups => "placement groups",
        }
    }

    /// The fields that a table shows.
    fn columns(self) -> &'static [&'static str] {
        match self {
            What::Tasks => &["task", "name", "state", "transport", "job", "attempts", "worker", "pid", "caller_pid"],
            What::Actors => {
                &["actor", "class", "name", "state", "job", "restart_count", "worker", "pid", "death_cause"]
            }
            What::Objects => &["id", "bytes", "state", "age_ms", "reference_count", "pin_count", "listed_count"],
            What::Workers => &["worker", "pid", "state", "runs", "is_blocked", "call_count", "demand", "gpus"],
            What::PlacementGroups => &["group", "name", "state", "strategy", "job", "bundle_count", "bundles"],
        }
    }

    /// A row with every field that there is.
    fn sample(self) -> Value {
        match self {
            What::Tasks => value(&TaskInfo { task: Some(TaskId::from_bytes([0; 24])), ..TaskInfo::default() }),
            What::Actors => value(&ActorInfo::default()),
            What::Objects => value(&empty_object()),
            What::Workers => value(&WorkerInfo::default()),
            What::PlacementGroups => value(&GroupInfo::default()),
        }
    }
}

fn empty_object() -> ObjectInfo {
    ObjectInfo {
        id: ObjectId::from_bytes([0; 28]),
        bytes: 0,
        state: ObjectState::Unknown,
        age_ms: 0,
        listed_count: 0,
        reference_count: 0,
        pin_count: 0,
        holders: Vec::new(),
    }
}

/// A wish about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    field: String,
    value: String,
    is_wanted: bool,
}

/// A text that is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no filter: a field of the rows, then = or !=, then its value")]
struct ParseFilterError {
    text: String,
}

fn parse_filter(text: &str) -> Result<Filter, ParseFilterError> {
    let (field, value) = text.split_once('=').ok_or_else(|| ParseFilterError { text: text.to_owned() })?;
    let is_wanted = !field.ends_with('!');
    let field = field.trim_end_matches('!').trim().to_owned();
    Ok(Filter { field, value: value.trim().to_owned(), is_wanted })
}

impl Filter {
    /// States are written in capitals and typed in any.
    fn holds(&self, row: &Value) -> bool {
        plain(&row[&self.field]).eq_ignore_ascii_case(&self.value) == self.is_wanted
    }
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    check_fields(options)?;
    let mut asker = Asker::connect(&options.session.directory()?)?;
    let limit = options.limit.unwrap_or(match options.format {
        Format::Table => LIMIT,
        Format::Json => usize::MAX,
    });
    let mut found = rows(&mut asker, options, limit)?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    match options.format {
        Format::Json => print_json(&found),
        Format::Table => print(&text(options.what, &found, is_more)),
    }
    Ok(())
}

fn check_fields(options: &Options) -> Result<(), CliError> {
    let sample = options.what.sample();
    let fields = sample.as_object().expect("a row has fields");
    match options.filter.iter().find(|filter| !fields.contains_key(&filter.field)) {
        None => Ok(()),
        Some(filter) => {
            let known = fields.keys().cloned().collect::<Vec<_>>().join(", ");
            Err(CliError::NoSuchField { field: filter.field.clone(), what: options.what.name(), known })
        }
    }
}

/// The rows that pass the filters: one more than the limit, where there are so many.
fn rows(asker: &mut Asker, options: &Options, limit: usize) -> Result<Vec<Value>, AskError> {
    let mut found = Vec::new();
    let wanted = Wanted { filters: &options.filter, limit, found: &mut found };
    match options.what {
        What::Tasks => pages::each_task(asker, wanted.taker()),
        What::Actors => pages::each_actor(asker, wanted.taker()),
        What::Objects => pages::each_object(asker, wanted.taker()),
        What::Workers => pages::each_worker(asker, wanted.taker()),
        What::PlacementGroups => pages::each_group(asker, wanted.taker()),
    }?;
    Ok(found)
}

struct Wanted<'a> {
    filters: &'a [Filter],
    limit: usize,
    found: &'a mut Vec<Value>,
}

impl<'a> Wanted<'a> {
    /// Takes rows as long as it may.
    fn taker<T: Serialize>(self) -> impl FnMut(T) -> bool + 'a {
        move |row| {
            let row = value(&row);
            if self.filters.iter().all(|filter| filter.holds(&row)) {
                self.found.push(row);
            }
            self.found.len() <= self.limit
        }
    }
}

pub(super) fn value(row: &impl Serialize) -> Value {
    serde_json::to_value(row).expect("rows have text keys only")
}

fn text(what: What, rows: &[Value], is_more: bool) -> String {
    let mut out = String::new();
    if !rows.is_empty() {
        out = table(what.columns(), rows);
    }
    // Writing to a String cannot fail.
    let _ = match (is_more, rows.len()) {
        (true, count) => writeln!(out, "the first {count} {} are shown (--limit)", what.name()),
        (false, count) => writeln!(out, "{count} {}", what.name()),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let filter = |field: &str, value: &str, is_wanted| {
            Ok(Filter { field: field.to_owned(), value: value.to_owned(), is_wanted })
        };
        assert_eq!(parse_filter("state=RUNNING"), filter("state", "RUNNING", true));
        assert_eq!(parse_filter("name != a=b"), filter("name", "a=b", false));
        assert_eq!(parse_filter("worker="), filter("worker", "", true));
        assert!(parse_filter("state").is_err());
    }

    #[test]
    fn filters_hold_or_not() {
        let row = value(&TaskInfo { name: "f".into(), state: TaskState::Running, ..TaskInfo::default() });
        let holds = |text: &str| parse_filter(text).unwrap().holds(&row);
        assert!(holds("state=running") && holds("name=f") && holds("worker=") && holds("job!=3"));
        assert!(!holds("state!=RUNNING") && !holds("name=g"));
    }

    #[test]
    fn each_column_is_a_field_of_its_rows() {
        for what in What::value_variants() {
            let sample = what.sample();
            for column in what.columns() {
                assert!(sample.get(column).is_some(), "{what:?} {column}");
            }
            assert!(text(*what, &[sample], true).contains("the first 1 "));
            assert_eq!(text(*what, &[], false), format!("0 {}\n", what.name()));
        }
    }
}
