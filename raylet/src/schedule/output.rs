//! What workers write, on its way to the driver whose program they run.
//!
//! The one thing to know: lines are taken in batches, and one look into a queue tells what a worker runs
//! for a whole batch. A driver that does not read loses lines, which are counted; workers are not held
//! up by it. This file must not keep lines.

use super::Scheduler;
use crate::pool::{Line, Stream};
use raylet_api::record::Record;
use raylet_api::{LogLine, LogLines};
use raylet_core::ids::{EnvId, WorkerId};
use std::collections::BTreeMap;

/// What a line begins with that says how the worker's following lines are to be labelled. A worker that
/// knows what it runs says so, as a short call may be over before its lines are read.
const LABEL: &[u8] = b"\x1eraylet-label\x1e";
/// Bytes of one message, so that it stays far below a frame's limit.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes that a line costs besides its text.
const LINE_BYTES: usize = 64;

impl Scheduler {
    /// Sends lines to the drivers of their workers; of workers that are forgotten, to nobody.
    pub(super) fn on_lines(&mut self, lines: &mut Vec<Line>) {
        let mut names: BTreeMap<u64, String> = BTreeMap::new();
        let mut by_env: BTreeMap<EnvId, Vec<LogLine>> = BTreeMap::new();
        for line in lines.drain(..) {
            let worker = WorkerId(line.worker);
            if let Some(label) = line.bytes.strip_prefix(LABEL) {
                if let Some(row) = self.workers.get_mut(&worker) {
                    row.label = Some(String::from_utf8_lossy(label).into_owned());
                }
                names.remove(&line.worker);
                continue;
            }
            self.logs.write(&line);
            let Some(env) = self.workers.get(&worker).map(|row| row.env).or_else(|| self.env_of_gone(worker)) else {
                continue;
            };
            let name = names.entry(line.worker).or_insert_with(|| self.name_of_worker(worker)).clone();
            let text = String::from_utf8_lossy(&line.bytes);
            let said = by_env.entry(env).or_default();
            let is_error = line.stream == Stream::Stderr;
            said.extend(pieces(&text).map(|text| LogLine {
                name: name.clone(),
                pid: line.pid,
                is_error,
                text: text.to_owned(),
            }));
        }
        for (env, lines) in by_env {
            self.send_lines(env, lines);
        }
    }

    /// What the worker runs, as its users call it.
    fn name_of_worker(&mut self, worker: WorkerId) -> String {
        if let Some(label) = self.workers.get(&worker).and_then(|row| row.label.clone()) {
            return label;
        }
        let running = self.key_of_claim(worker);
        let Some(row) = self.workers.get_mut(&worker) else { return "worker".to_owned() };
        // Between calls it is what ran last.
        row.runs = running.or(row.runs);
        let runs = row.runs;
        runs.map_or_else(|| "worker".to_owned(), |key| self.name_of(key))
    }

    /// The function of the record that a leased worker has claimed.
    fn key_of_claim(&self, worker: WorkerId) -> Option<u64> {
        let row = self.workers.get(&worker).filter(|row| row.actor.is_none())?;
        let client = self.client_of(worker)?;
        let queue = row.serves.iter().find_map(|number| self.queues.get(number))?;
        let claimed = queue.queue.claimed_by(client.number).next()?;
        Record::unpack(&claimed.payload).ok().map(|record| record.key)
    }

    fn send_lines(&mut self, env: EnvId, lines: Vec<LogLine>) {
        let Some(driver) = self.drivers.get_mut(&env) else { return };
        let Some(peer) = self.peers.get(&driver.line) else { return };
        let mut batch = Batch::default();
        for line in lines {
            if !peer.out.has_log_room() {
                driver.dropped_lines += 1;
                continue;
            }
            if batch.bytes + line.text.len() > MESSAGE_BYTES_MAX {
                std::mem::take(&mut batch).send(&peer.out, &mut driver.dropped_lines);
            }
            batch.bytes += line.text.len() + LINE_BYTES;
            batch.lines.push(line);
        }
        batch.send(&peer.out, &mut driver.dropped_lines);
    }

    /// The environment of a worker that was buried before its last lines were read.
    fn env_of_gone(&self, worker: WorkerId) -> Option<EnvId> {
        self.gone_workers.iter().find(|(gone, _)| *gone == worker).map(|(_, env)| *env)
    }
}

#[derive(Default)]
struct Batch {
    lines: Vec<LogLine>,
    bytes: usize,
}

impl Batch {
    fn send(self, out: &super::line::Outbound, dropped: &mut u64) {
        if !self.lines.is_empty() {
            let dropped_count = std::mem::take(dropped);
            out.send_log(LogLines { lines: self.lines, dropped_count }, self.bytes);
        }
    }
}

/// A line in pieces that fit into a message.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let most = text.len().min(MESSAGE_BYTES_MAX / 2);
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(text.len());
        let (piece, after) = text.split_at(end);
        rest = Some(after).filter(|after| !after.is_empty());
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_in_pieces_between_characters() {
        let text = "ä".repeat(MESSAGE_BYTES_MAX);
        let found: Vec<&str> = pieces(&text).collect();
        assert_eq!(found.concat(), text);
        assert!(found.iter().all(|piece| piece.len() <= MESSAGE_BYTES_MAX / 2));
        assert_eq!(pieces("").collect::<Vec<_>>(), [""]);
    }
}
