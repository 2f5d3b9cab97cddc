//! Rows that follow from the rows of `ray_perf.py`: the same under short names, and all in one figure.
//!
//! The one thing to know: whoever Ray completes counts, so a row that Ray has and ours has not leaves no
//! figure at all. The two rows of gigabytes are left out: they copy, and have a limit of their own.

use super::work::{PERF_ROWS, RayWork, SHORT_NAMES};
use crate::plan::Peer;
use crate::report::Report;

/// Adds or renews what follows; the figures of all rows only once all of them are there.
pub(super) fn conclude(report: &mut Report) {
    let name = |work: &str| format!("{work}, {}", Peer::Ray.name());
    for (short, long) in SHORT_NAMES {
        report.repeat(&name(long), name(short));
    }
    let counted = PERF_ROWS.iter().filter(|plan| matches!(plan.work, RayWork::Perf(_)));
    let Some(rows) = counted.map(|plan| report.row(&name(plan.name))).collect::<Option<Vec<_>>>() else {
        return;
    };
    let completed = rows.into_iter().filter(|row| row.peer.is_some());
    let ratios: Option<Vec<f64>> = completed.map(|row| row.ratio).collect();
    let ratios = ratios.filter(|ratios| !ratios.is_empty());
    report.add_times(name("ray_perf geometric mean"), Peer::Ray, ratios.as_deref().map(geometric_mean));
    let lowest = ratios.and_then(|ratios| ratios.into_iter().min_by(f64::total_cmp));
    report.add_times(name("ray_perf lowest row"), Peer::Ray, lowest);
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Summary;

    fn summary(median: f64) -> Summary {
        Summary { median, p99: median, p999: median, sample_count: 1 }
    }

    /// All rows, the first with these figures, the last without Ray's, the others twice as good as Ray.
    fn report(first: Option<f64>) -> Report {
        let mut report = Report::default();
        for (index, plan) in PERF_ROWS.iter().enumerate() {
            let ours = if index == 0 { first } else { Some(2.0) };
            let ray = (index + 1 < PERF_ROWS.len()).then(|| summary(1.0));
            report.add(plan, ours.map(summary).as_ref(), &[(Peer::Ray, ray)]);
        }
        conclude(&mut report);
        report
    }

    fn ratio(report: &Report, name: &str) -> Option<f64> {
        report.row(name).expect("a row").ratio
    }

    #[test]
    fn rows_that_ray_completes_make_the_mean_and_the_lowest() {
        let report = report(Some(1.0));
        assert_eq!(ratio(&report, "ray_perf lowest row, ray"), Some(1.0));
        // 19 of 20 counted rows are twice as good.
        let mean = ratio(&report, "ray_perf geometric mean, ray").expect("a figure");
        assert!((mean - 2.0_f64.powf(19.0 / 20.0)).abs() < 1e-9, "{mean}");
        assert_eq!(ratio(&report, "get small, ray"), Some(1.0));
    }

    #[test]
    fn a_row_that_ours_does_not_complete_leaves_no_figure() {
        let report = report(None);
        assert_eq!(ratio(&report, "ray_perf geometric mean, ray"), None);
        assert_eq!(ratio(&report, "ray_perf lowest row, ray"), None);
    }

    #[test]
    fn there_is_no_figure_before_there_are_all_rows() {
        let mut report = Report::default();
        report.add(&PERF_ROWS[0], Some(&summary(1.0)), &[(Peer::Ray, Some(summary(1.0)))]);
        conclude(&mut report);
        assert!(report.row("get small, ray").is_some());
        assert!(report.row("ray_perf lowest row, ray").is_none());
    }
}
