//! Rows, the printed table and the JSON beside it. Measures nothing.

use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::error::BenchError;
use crate::plan::{Peer, Unit, WorkPlan};
use crate::stats::Summary;

/// One work and one peer, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// "<work>, <peer>", or "<work>" where nobody is held against it.
    pub name: String,
    /// Of `ours` and `peer`.
    pub unit: &'static str,
    /// Median of ours; none where ours gave no measurement.
    pub ours: Option<f64>,
    /// Median of the peer; none where it could not be run.
    pub peer: Option<f64>,
    /// The peer's name; none where it could not be run.
    pub peer_name: Option<&'static str>,
    /// Above one, ours is better.
    pub ratio: Option<f64>,
}

/// Everything one run measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    rows: Vec<Row>,
    #[serde(skip)]
    lines: Vec<Vec<String>>,
}

impl Report {
    /// Adds the rows of one work: one for each peer, or one alone.
    pub fn add<W>(&mut self, plan: &WorkPlan<W>, ours: Option<&Summary>, peers: &[(Peer, Option<Summary>)]) {
        if peers.is_empty() {
            self.push(plan, plan.name.to_owned(), ours, None, None);
        }
        for (peer, measured) in peers {
            let name = format!("{}, {}", plan.name, peer.name());
            let peer_name = measured.is_some().then(|| peer.name());
            self.push(plan, name, ours, measured.as_ref(), peer_name);
        }
    }

    fn push<W>(
        &mut self,
        plan: &WorkPlan<W>,
        name: String,
        ours: Option<&Summary>,
        peer: Option<&Summary>,
        peer_name: Option<&'static str>,
    ) {
        let ratio = ours.zip(peer).map(|(ours, peer)| plan.unit.ratio(ours.median, peer.median));
        let mut line = vec![name.clone(), plan.unit.name().to_owned()];
        line.extend(columns(plan.unit, ours));
        line.extend(columns(plan.unit, peer));
        line.push(ratio.map_or_else(dash, figure));
        self.lines.push(line);
        let (ours, peer) = (ours.map(|s| s.median), peer.map(|s| s.median));
        self.rows.push(Row { name, unit: plan.unit.name(), ours, peer, peer_name, ratio });
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["work, peer", "unit", "ours p50", "p99", "p99.9", "peer p50", "p99", "p99.9", "ratio"]);
        table.add_rows(&self.lines);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
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

/// Median and tail; a rate has no tail worth a column.
fn columns(unit: Unit, summary: Option<&Summary>) -> [String; 3] {
    let Some(summary) = summary else {
        return [dash(), dash(), dash()];
    };
    let tail = |value| {
        if unit == Unit::Nanoseconds { figure(value) } else { dash() }
    };
    [figure(summary.median), tail(summary.p99), tail(summary.p999)]
}

fn dash() -> String {
    "-".to_owned()
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
}
