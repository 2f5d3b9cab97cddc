//! Rows, the printed table and the JSON beside it. Measures nothing.
//!
//! The one thing to know: a row that is added under a name that is there takes its place, so that a run
//! of some works renews their rows in what an earlier run wrote.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::plan::{Peer, Unit, WorkPlan};
use crate::stats::Summary;

/// One work and one peer, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// "<work>, <peer>", or "<work>" where nobody is held against it.
    pub name: String,
    /// Of `ours` and `peer`.
    pub unit: String,
    /// Median of ours; none where ours gave no measurement.
    pub ours: Option<f64>,
    /// Median of the peer; none where it could not be run.
    pub peer: Option<f64>,
    /// The peer's name; none where it could not be run.
    pub peer_name: Option<String>,
    /// Above one, ours is better.
    pub ratio: Option<f64>,
}

/// Everything one run measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    rows: Vec<Row>,
    /// p99 and p99.9 of ours and of the peer of each row measured in this run, for the table.
    #[serde(skip)]
    tails: HashMap<String, [Tail; 2]>,
}

/// p99 and p99.9, where they say something.
type Tail = Option<[f64; 2]>;

impl Report {
    /// What an earlier run wrote; nothing where there is none, or it is of another form.
    pub fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// The row of this name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The row `of`, if there is one, under another name too.
    pub fn repeat(&mut self, of: &str, name: String) {
        if let Some(row) = self.row(of).cloned() {
            let tails = self.tails.get(of).copied();
            self.put(Row { name, ..row }, tails.unwrap_or_default());
        }
    }

    /// A row of one figure beside a peer's one: how many times better ours is.
    pub fn add_times(&mut self, name: String, peer: Peer, times: Option<f64>) {
        let (unit, peer_name) = (Unit::Times.name().to_owned(), Some(peer.name().to_owned()));
        let row = Row { name, unit, ours: times, peer: Some(1.0), peer_name, ratio: times };
        self.put(row, [None; 2]);
    }

    /// Adds the rows of one work: one for each peer, or one alone.
    pub fn add<W>(&mut self, plan: &WorkPlan<W>, ours: Option<&Summary>, peers: &[(Peer, Option<Summary>)]) {
        if peers.is_empty() {
            self.push(plan, plan.name.to_owned(), ours, None, None);
        }
        for (peer, measured) in peers {
            let name = format!("{}, {}", plan.name, peer.name());
            let peer_name = measured.is_some().then(|| peer.name().to_owned());
            self.push(plan, name, ours, measured.as_ref(), peer_name);
        }
    }

    fn push<W>(
        &mut self,
        plan: &WorkPlan<W>,
        name: String,
        ours: Option<&Summary>,
        peer: Option<&Summary>,
        peer_name: Option<String>,
    ) {
        let ratio = ours.zip(peer).map(|(ours, peer)| plan.unit.ratio(ours.median, peer.median));
        let tails = [ours, peer].map(|summary| summary.and_then(|summary| tail(plan.unit, summary)));
        let (ours, peer) = (ours.map(|s| s.median), peer.map(|s| s.median));
        self.put(Row { name, unit: plan.unit.name().to_owned(), ours, peer, peer_name, ratio }, tails);
    }

    fn put(&mut self, row: Row, tails: [Tail; 2]) {
        self.tails.insert(row.name.clone(), tails);
        match self.rows.iter_mut().find(|known| known.name == row.name) {
            Some(known) => *known = row,
            None => self.rows.push(row),
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["work, peer", "unit", "ours p50", "p99", "p99.9", "peer p50", "p99", "p99.9", "ratio"]);
        table.add_rows(self.rows.iter().map(|row| self.line(row)));
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
        let [our_tail, peer_tail] = self.tails.get(&row.name).copied().unwrap_or_default();
        let mut line = vec![row.name.clone(), row.unit.clone()];
        for (median, tail) in [(row.ours, our_tail), (row.peer, peer_tail)] {
            line.push(cell(median));
            line.extend([0, 1].map(|which| cell(tail.map(|tail| tail[which]))));
        }
        line.push(cell(row.ratio));
        line
    }

    /// Writes the JSON, its directory included.
    pub fn write(&self, path: &Path) -> Result<(), BenchError> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(BenchError::system("the result's directory"))?;
        }
        let json = serde_json::to_vec_pretty(self).expect("rows have string keys and finite numbers");
        fs::write(path, json).map_err(BenchError::system("the result"))
    }
}

/// A rate has no tail worth a column.
fn tail(unit: Unit, summary: &Summary) -> Tail {
    (unit == Unit::Nanoseconds).then_some([summary.p99, summary.p999])
}

/// Three digits where they say something.
fn figure(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::work::STORE_WORKS;

    fn summary(median: f64) -> Summary {
        Summary { median, p99: median, p999: median, sample_count: 1 }
    }

    #[test]
    fn a_peer_that_could_not_run_leaves_nulls() {
        let mut report = Report::default();
        report.add(&STORE_WORKS[0], Some(&summary(10.0)), &[(Peer::Plasma, None)]);
        report.add(&STORE_WORKS[0], Some(&summary(10.0)), &[(Peer::RmwPair, Some(summary(7.5)))]);
        report.add(&STORE_WORKS[16], None, &[]);
        let json = serde_json::to_value(&report).expect("serializable");
        assert_eq!(json["rows"][0]["name"], "get + release by handle hot, plasma");
        assert!(json["rows"][0]["peer"].is_null() && json["rows"][0]["ratio"].is_null());
        assert_eq!(json["rows"][1]["ratio"], 0.75);
        assert_eq!(json["rows"][2]["name"], "metadata per object");
        assert!(report.table().contains("0.75"));
    }

    #[test]
    fn a_later_run_renews_its_rows_and_keeps_the_others() {
        let directory = crate::scratch::on_disk().expect("a directory");
        let path = directory.path().join("result.json");
        let mut report = Report::default();
        report.add(&STORE_WORKS[0], Some(&summary(10.0)), &[(Peer::RmwPair, Some(summary(10.0)))]);
        report.add(&STORE_WORKS[16], Some(&summary(3.0)), &[]);
        report.write(&path).expect("a result");
        let mut later = Report::read(&path);
        later.add(&STORE_WORKS[0], Some(&summary(5.0)), &[(Peer::RmwPair, Some(summary(10.0)))]);
        assert_eq!(later.rows.len(), 2);
        assert_eq!(later.rows[0].ratio, Some(2.0));
        assert_eq!(later.rows[1], report.rows[1]);
        assert!(Report::read(&directory.path().join("nothing")).rows.is_empty());
    }

    #[test]
    fn a_repeated_row_differs_by_its_name() {
        let mut report = Report::default();
        report.add(&STORE_WORKS[16], Some(&summary(3.0)), &[]);
        report.repeat("metadata per object", "metadata".to_owned());
        report.repeat("nothing", "nothing again".to_owned());
        assert_eq!(report.row("metadata").and_then(|row| row.ours), Some(3.0));
        assert_eq!(report.rows.len(), 2);
    }
}
