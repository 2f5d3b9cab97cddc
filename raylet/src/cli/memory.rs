//! `raylet memory`: which objects there are and who holds them.
//!
//! The one thing to know: the listing comes in pages while the world goes on, so it is no snapshot;
//! an object that came or went meanwhile may be missing. This file must not sort out who is right.

use super::{CliError, Format, SessionOptions, bytes, print, print_json};
use crate::ask::{AskError, Asker};
use clap::Args;
use raylet_api::message::*;
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    session: SessionOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How many objects to print as text, the largest first; JSON has all
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
}

/// Everything, as JSON has it.
#[derive(Debug, Default, Serialize)]
struct Listing {
    clients: Vec<ClientInfo>,
    objects: Vec<ObjectInfo>,
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let mut asker = Asker::connect(&options.session.directory()?)?;
    let mut listing = Listing { clients: clients(&mut asker)?, objects: objects(&mut asker)? };
    match options.format {
        Format::Json => print_json(&listing),
        Format::Text => {
            listing.objects.sort_by_key(|object| std::cmp::Reverse(object.bytes));
            print(&text(&listing, options.limit));
        }
    }
    Ok(())
}

fn clients(asker: &mut Asker) -> Result<Vec<ClientInfo>, AskError> {
    pages(|cursor| match asker.ask(ListClients { cursor, count_max: PAGE_COUNT_MAX })? {
        Message::ClientsReply(page) => Ok((page.clients, page.next_cursor)),
        other => Err(AskError::Unexpected { found: other.name() }),
    })
}

fn objects(asker: &mut Asker) -> Result<Vec<ObjectInfo>, AskError> {
    pages(|cursor| match asker.ask(ListObjects { cursor, count_max: PAGE_COUNT_MAX })? {
        Message::ObjectsReply(page) => Ok((page.objects, page.next_cursor)),
        other => Err(AskError::Unexpected { found: other.name() }),
    })
}

/// All pages in one. A cursor that does not grow would ask for ever: there the listing ends.
fn pages<T>(mut page: impl FnMut(u64) -> Result<(Vec<T>, Option<u64>), AskError>) -> Result<Vec<T>, AskError> {
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        let (entries, next) = page(cursor)?;
        all.extend(entries);
        match next {
            Some(next) if next > cursor => cursor = next,
            _ => return Ok(all),
        }
    }
}

fn text(listing: &Listing, limit: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:<7} {:>9} {:>8} {:>10} {:>10}  LABEL", "CLIENT", "PID", "AGE", "HOLDS", "PINS");
    for client in &listing.clients {
        let (held, pinned) = (bytes::show(client.held_bytes), bytes::show(client.pinned_bytes));
        let _ = writeln!(
            out,
            "{:<7} {:>9} {:>8} {held:>10} {pinned:>10}  {}{}",
            client.client_index,
            client.pid,
            age(client.age_ms),
            client.label,
            remarks(client),
        );
    }
    let _ = writeln!(out, "\n{:<56} {:>10} {:<8} {:>8} HOLDERS", "OBJECT", "BYTES", "STATE", "AGE");
    for object in listing.objects.iter().take(limit) {
        let (size, state) = (bytes::show(object.bytes), format!("{:?}", object.state));
        let _ = writeln!(out, "{} {size:>10} {state:<8} {:>8} {}", object.id, age(object.age_ms), holders(object));
    }
    let total = bytes::show(listing.objects.iter().map(|object| object.bytes).sum());
    let count = listing.objects.len();
    let _ = writeln!(out, "\n{count} objects, {total}; {} clients", listing.clients.len());
    if count > limit {
        let _ = writeln!(out, "the {limit} largest are shown (--limit)");
    }
    out
}

/// ` (stopped, waits for 2.0 MiB)`, or nothing.
fn remarks(client: &ClientInfo) -> String {
    let waits = format!("waits for {}", bytes::show(client.waiting_bytes));
    let parent = format!("forked by {}", client.parent.unwrap_or_default());
    let remarks =
        [(client.stopped, "stopped".to_owned()), (client.waiting_bytes > 0, waits), (client.parent.is_some(), parent)];
    let remarks: Vec<_> = remarks.into_iter().filter_map(|(holds, remark)| holds.then_some(remark)).collect();
    match remarks.is_empty() {
        true => String::new(),
        false => format!(" ({})", remarks.join(", ")),
    }
}

/// An age with one digit after the point.
fn age(age_ms: u64) -> String {
    let seconds = age_ms as f64 / 1e3;
    match age_ms / 1000 {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// `3 references, 1 pins, in 1 objects: pid 7 (2 references, 1 pins), ...`
fn holders(object: &ObjectInfo) -> String {
    let each = object.holders.iter().map(|holder| {
        let (pid, references, pins) = (holder.pid, holder.references, holder.pins);
        format!("pid {pid} ({references} references, {pins} pins)")
    });
    let each: Vec<_> = each.collect();
    let mut counts = format!("{} references, {} pins", object.reference_count, object.pin_count);
    if object.listed_count > 0 {
        let _ = write!(counts, ", in {} objects", object.listed_count);
    }
    match each.is_empty() {
        true => counts,
        false => format!("{counts}: {}", each.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_api::ids::ObjectId;

    #[test]
    fn pages_are_joined_and_a_stuck_cursor_ends() {
        let all = pages(|cursor| Ok((vec![cursor], Some(cursor + 1).filter(|&next| next < 3))));
        assert_eq!(all.unwrap(), [0, 1, 2]);
        assert_eq!(pages(|cursor| Ok((vec![cursor], Some(0)))).unwrap(), [0]);
    }

    #[test]
    fn holders_are_named() {
        let holder = Holder { client_index: 1, pid: 7, references: 1, pins: 1 };
        let object = ObjectInfo {
            id: ObjectId::from_bytes([1; 28]),
            bytes: 2048,
            state: ObjectState::InMemory,
            age_ms: 90_000,
            listed_count: 2,
            reference_count: 1,
            pin_count: 1,
            holders: vec![holder],
        };
        let listing = Listing { clients: vec![], objects: vec![object] };
        let text = text(&listing, 10);
        let line = "2.0 KiB InMemory  1.5 min 1 references, 1 pins, in 2 objects: \
                    pid 7 (1 references, 1 pins)\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("1 objects, 2.0 KiB; 0 clients"), "{text}");
    }
}
