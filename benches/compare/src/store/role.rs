//! Our other processes: what each does once it has joined the harness's store.
//!
//! The one thing to know: they end with the harness, by signal or by the end of the socket.

use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use store::Store;
use store::arrow::Table;

use super::pair::{End, Way, read_for};
use super::talk::Talk;
use crate::child::{end_with_parent, pin_to_core, unpin, unpinned};
use crate::error::BenchError;

/// Another process of ours, as `talk::Partner` starts it.
pub fn role(role: &str, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    let talk = Talk::of_role()?;
    // Whoever joins while it has one core never spins.
    if role == "echo-asleep" {
        pin_to_core(core);
    } else {
        unpin();
    }
    let store = talk.join_store()?;
    pin_to_core(core);
    match role {
        "hold" => hold(talk, &store),
        "read" => read(talk, &store),
        "sum" => sum(talk, &store),
        "echo-hot" | "echo-asleep" => echo(store),
        _ => Err(BenchError::UnknownRole { role: role.to_owned() }),
    }
}

/// Refers to whatever the harness names, until it is killed.
fn hold(mut talk: Talk, store: &Store) -> Result<(), BenchError> {
    let objects = talk.hear_objects(store)?;
    talk.tell(&[objects.len() as u64])?;
    talk.hear::<1>()?;
    Ok(())
}

/// Reads one object whenever the harness says for how long.
fn read(mut talk: Talk, store: &Store) -> Result<(), BenchError> {
    let objects = talk.hear_objects(store)?;
    while let Ok([window]) = talk.hear() {
        let (pairs, nanos) = read_for(Duration::from_nanos(window), store, &objects[0])?;
        talk.tell(&[pairs, nanos])?;
    }
    Ok(())
}

/// Sums a table twice: the first pass meets pages that this process has never seen.
fn sum(mut talk: Talk, store: &Store) -> Result<(), BenchError> {
    let objects = talk.hear_objects(store)?;
    let table = unpinned(|| store.get_table(&objects[0]));
    let table = table.map_err(BenchError::store("get a table"))?;
    // Not pinned, as a user's process is not: the store maps for its reader with another thread.
    let ((first, _), (second, total)) = unpinned(|| (timed_sum(&table), timed_sum(&table)));
    talk.tell(&[first, second, total])
}

fn timed_sum(table: &Table) -> (u64, u64) {
    let start = Instant::now();
    let columns = table.batches.iter().flat_map(|batch| batch.columns());
    let words = columns.map(|column| column.as_primitive::<Int64Type>().values());
    let total = words.fold(0_i64, |total, words| words.iter().fold(total, |sum, word| sum.wrapping_add(*word)));
    let total = std::hint::black_box(total.cast_unsigned());
    (start.elapsed().as_nanos() as u64, total)
}

/// Answers each ping with a pong.
fn echo(store: Store) -> Result<(), BenchError> {
    let mut end = End::new(store, Way::Pong, Way::Ping);
    for turn in 1..u32::MAX {
        end.hear(turn)?;
        end.say(turn)?;
    }
    Ok(())
}
