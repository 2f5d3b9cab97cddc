//! `raylet memory`: which objects there are and who holds them.
//!
//! The one thing to know: the listing comes in pages while the world goes on, so it is no snapshot;
//! an object that came or went meanwhile may be missing. This file must not sort out who is right.

use super::{CliError, Format, SessionOptions, age, bytes, pages, print, print_json};
use crate::ask::Asker;
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
    let mut listing = Listing::default();
    pages::each_client(&mut asker, pages::into(&mut listing.clients))?;
    pages::each_object(&mut asker, pages::into(&mut listing.objects))?;
    match options.format {
        Format::Json => print_json(&listing),
        Format::Table => {
            listing.objects.sort_by_key(|object| std::cmp::Reverse(object.bytes));
            print(&text(&listing, options.limit));
        }
    }
    Ok(())
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
