//! What the commands print with `--format json`, for a program that has this library.
//!
//! The one thing to know: names are those of the listings. This file must not print.

use super::list::value;
use super::{CliError, pages, status, timeline};
use crate::ask::{AskError, Asker};
use serde_json::Value;
use std::path::Path;

/// What the raylet of a session says about something, as JSON text, or why it says nothing; `None` where nothing
/// is called so.
///
/// `tasks`, `actors`, `objects`, `workers`, `placement-groups`, `clients`, `status`, `timeline`.
pub fn look(what: &str, directory: &Path) -> Option<Result<String, String>> {
    let found = match what {
        "status" => status::ask(directory).map(|whole| value(&whole)).map_err(CliError::from),
        "timeline" => timeline::trace_of(directory),
        listing => rows(listing, directory)?.map_err(CliError::from),
    };
    Some(found.map(|found| found.to_string()).map_err(|error| error.to_string()))
}

fn rows(what: &str, directory: &Path) -> Option<Result<Value, AskError>> {
    let mut all = Vec::new();
    let mut asked = |each: fn(&mut Asker, &mut Vec<Value>) -> Result<(), AskError>| {
        let mut asker = Asker::connect(directory)?;
        each(&mut asker, &mut all)
    };
    let asked = match what {
        "tasks" => asked(|asker, all| pages::each_task(asker, keep(all))),
        "actors" => asked(|asker, all| pages::each_actor(asker, keep(all))),
        "objects" => asked(|asker, all| pages::each_object(asker, keep(all))),
        "workers" => asked(|asker, all| pages::each_worker(asker, keep(all))),
        "placement-groups" => asked(|asker, all| pages::each_group(asker, keep(all))),
        "clients" => asked(|asker, all| pages::each_client(asker, keep(all))),
        _ => return None,
    };
    Some(asked.map(|()| Value::Array(all)))
}

fn keep<T: serde::Serialize>(all: &mut Vec<Value>) -> impl FnMut(T) -> bool {
    |row| {
        all.push(value(&row));
        true
    }
}
