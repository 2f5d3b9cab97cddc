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
    let mut listing = Listing {
        clients: clients(&mut asker)?,
        objects: objects(&mut asker)?,
    };
    match options.format {
        Format::Json => print_json(&listing),
        Format::Text => {
            listing
                .objects
                .sort_by_key(|object| std::cmp::Reverse(object.bytes));
            print(&text(&listing, options.limit));
        }
    }
    Ok(())
}

fn clients(asker: &mut Asker) -> Result<Vec<ClientInfo>, AskError> {
    pages(|cursor| {
        match asker.ask(ListClients {
            cursor,
            count_max: PAGE_COUNT_MAX,
        })? {
            Message::ClientsReply(page) => Ok((page.clients, page.next_cursor)),
            other => Err(AskError::Unexpected {
                found: other.name(),
            }),
        }
    })
}

fn objects(asker: &mut Asker) -> Result<Vec<ObjectInfo>, AskError> {
    pages(|cursor| {
        match asker.ask(ListObjects {
            cursor,
            count_max: PAGE_COUNT_MAX,
        })? {
            Message::ObjectsReply(page) => Ok((page.objects, page.next_cursor)),
            other => Err(AskError::Unexpected {
                found: other.name(),
            }),
        }
    })
}

/// All pages in one. A cursor that does not grow would ask for ever: there the listing ends.
fn pages<T>(
    mut page: impl FnMut(u64) -> Result<(Vec<T>, Option<u64>), AskError>,
) -> Result<Vec<T>, AskError> {
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
    let _ = writeln!(
        out,
        "{:<7} {:>9} {:>10} {:>6} {:>10}  LABEL",
        "CLIENT", "PID", "REFERENCES", "PINS", "GRANTED"
    );
    for client in &listing.clients {
        let granted = bytes::show(client.granted_bytes);
        let _ = writeln!(
            out,
            "{:<7} {:>9} {:>10} {:>6} {granted:>10}  {}",
            client.client_index, client.pid, client.reference_count, client.pin_count, client.label,
        );
    }
    let _ = writeln!(
        out,
        "\n{:<56} {:>10} {:<8} HOLDERS",
        "OBJECT", "BYTES", "STATE"
    );
    for object in listing.objects.iter().take(limit) {
        let (size, state) = (bytes::show(object.bytes), format!("{:?}", object.state));
        let _ = writeln!(
            out,
            "{} {size:>10} {state:<8} {}",
            object.id,
            holders(object)
        );
    }
    let total = bytes::show(listing.objects.iter().map(|object| object.bytes).sum());
    let count = listing.objects.len();
    let _ = writeln!(
        out,
        "\n{count} objects, {total}; {} clients",
        listing.clients.len()
    );
    if count > limit {
        let _ = writeln!(out, "the {limit} largest are shown (--limit)");
    }
    out
}

/// `3 references, 1 pin: pid 7 (reference, pin), ...`
fn holders(object: &ObjectInfo) -> String {
    let each = object.holders.iter().map(|holder| {
        let what = match (holder.reference, holder.pin) {
            (true, true) => "reference, pin",
            (true, false) => "reference",
            (false, true) => "pin",
            (false, false) => "nothing",
        };
        format!("pid {} ({what})", holder.pid)
    });
    let each: Vec<_> = each.collect();
    let counts = format!(
        "{} references, {} pins",
        object.reference_count, object.pin_count
    );
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
        let holder = Holder {
            client_index: 1,
            pid: 7,
            reference: true,
            pin: true,
        };
        let object = ObjectInfo {
            id: ObjectId::from_bytes([1; 28]),
            bytes: 2048,
            state: ObjectState::Sealed,
            reference_count: 1,
            pin_count: 1,
            holders: vec![holder],
        };
        let listing = Listing {
            clients: vec![],
            objects: vec![object],
        };
        let text = text(&listing, 10);
        let line = "2.0 KiB Sealed   1 references, 1 pins: pid 7 (reference, pin)\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("1 objects, 2.0 KiB; 0 clients"), "{text}");
    }
}
