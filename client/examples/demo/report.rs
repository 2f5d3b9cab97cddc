//! What the demo shows: progress while it works, then what it found and where time and bytes went.
//!
//! The one thing to know: every number comes from receipts of tasks or from the findings; nothing is
//! estimated. This file must not decide what is right: `main` compares.

use super::corpus::Corpus;
use super::job::Outcome;
use super::output::Findings;
use super::tasks::Receipt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// What tasks, actors and the driver do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    /// Files into the store.
    Read,
    /// Markup away.
    Strip,
    /// White space in one form.
    Normalise,
    /// A verdict on documents.
    Filter,
    /// Documents into passages.
    Slice,
    /// Hashes told to an actor.
    Claim,
    /// Passages that others have away.
    DropDuplicates,
    /// Words counted.
    CountWords,
    /// Counts added up.
    MergeWords,
    /// What is left of that at the end.
    SumWords,
    /// Passages into the file.
    Write,
}

/// Who does what.
const WORKERS: &str = "workers";
const ACTORS: &str = "actors";
const DRIVER: &str = "driver";

/// All of them in the order of the work, with their names and who does it.
const OPERATORS: [(Operator, &str, &str); 11] = [
    (Operator::Read, "read files", WORKERS),
    (Operator::Strip, "strip markup", WORKERS),
    (Operator::Normalise, "normalise", WORKERS),
    (Operator::Filter, "filter documents", WORKERS),
    (Operator::Slice, "slice into passages", WORKERS),
    (Operator::Claim, "claim hashes", ACTORS),
    (Operator::DropDuplicates, "drop duplicates", WORKERS),
    (Operator::CountWords, "count words", WORKERS),
    (Operator::MergeWords, "merge words", WORKERS),
    (Operator::SumWords, "sum words", DRIVER),
    (Operator::Write, "write passages", DRIVER),
];

/// Sums of one operator's receipts.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    calls: u64,
    ns: u64,
    bytes_in: u64,
    bytes_out: u64,
}

// A tally finds an operator's row by its number.
const _: () = {
    let mut at = 0;
    while at < OPERATORS.len() {
        assert!(OPERATORS[at].0 as usize == at);
        at += 1;
    }
};

/// Sums of all receipts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sums: [Sum; OPERATORS.len()],
    pids: BTreeSet<u32>,
    last_worker: u32,
}

impl Tally {
    /// Counts one.
    pub(crate) fn add(&mut self, operator: Operator, receipt: Receipt) {
        let sum = &mut self.sums[operator as usize];
        sum.calls += 1;
        sum.ns += receipt.ns;
        sum.bytes_in += receipt.bytes_in;
        sum.bytes_out += receipt.bytes_out;
        let (_, _, who) = OPERATORS[operator as usize];
        if who != DRIVER {
            self.pids.insert(receipt.pid);
        }
        if who == WORKERS {
            self.last_worker = receipt.pid;
        }
    }

    /// The process that a task of late ran in.
    pub(crate) fn last_worker(&self) -> u32 {
        self.last_worker
    }

    /// How many processes tasks and actors ran in.
    pub(crate) fn processes(&self) -> usize {
        self.pids.len()
    }

    fn bytes(&self) -> Bytes {
        let sum = |operator: Operator| self.sums[operator as usize];
        let (read, written) = (sum(Operator::Read), sum(Operator::Write));
        Bytes {
            read: read.bytes_in,
            stored: self.remote().map(|sum| sum.bytes_out).sum(),
            in_place: self.sums.iter().map(|sum| sum.bytes_in).sum::<u64>() - read.bytes_in,
            file: written.bytes_out,
        }
    }

    fn tasks(&self) -> u64 {
        self.remote().map(|sum| sum.calls).sum()
    }

    /// Sums of what was not done by the driver.
    fn remote(&self) -> impl Iterator<Item = &Sum> {
        let all = self.sums.iter().zip(OPERATORS);
        all.filter(|(_, (_, _, who))| *who != DRIVER).map(|(sum, _)| sum)
    }
}

/// Where bytes went.
struct Bytes {
    /// From files.
    read: u64,
    /// Into the store: each result, once.
    stored: u64,
    /// Of arguments that were read where they lie.
    in_place: u64,
    /// Into the file of passages.
    file: u64,
}

/// The bar, on a terminal; nothing elsewhere.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar for so many bytes; none if `is_quiet`.
    pub(crate) fn new(bytes: u64, is_quiet: bool) -> Progress {
        let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
        let template = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {msg}, {eta} left";
        bar.set_style(ProgressStyle::with_template(template).expect("a template that is in the code"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    /// So many bytes more are done.
    pub(crate) fn advance(&self, bytes: u64, findings: &Findings) {
        self.0.inc(bytes);
        let passages_per_s = findings.passages as f64 / self.0.elapsed().as_secs_f64();
        self.0.set_message(format!("{} passages kept, {passages_per_s:.0} passages/s", findings.passages_kept));
    }

    /// Something happened.
    pub(crate) fn say(&self, text: &str) {
        self.0.suspend(|| eprintln!("{text}"));
    }

    /// The work is done, or failed.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Numbers of bytes for people.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What was found, in words.
pub(crate) fn print_findings(corpus: &Corpus, findings: &Findings, top: &[(String, u64)]) {
    let roots: Vec<_> = corpus.roots.iter().map(|root| root.path.display().to_string()).collect();
    println!(
        "corpus     {} files, {}, {} x, of {}",
        corpus.paths.len(),
        mib(corpus.bytes),
        corpus.copies,
        roots.join(", ")
    );
    println!(
        "documents  {}, of which {} are long enough and not mostly repetition ({} files are no text)",
        findings.documents, findings.documents_kept, findings.files_skipped
    );
    let duplicates = findings.passages - findings.passages_kept;
    let percent = duplicates as f64 * 100.0 / findings.passages.max(1) as f64;
    println!(
        "passages   {}, without {duplicates} duplicates ({percent:.1} %) {}",
        findings.passages, findings.passages_kept
    );
    let top: Vec<_> = top.iter().take(8).map(|(word, count)| format!("{word} {count}")).collect();
    println!("words      {}, {} different; {}", findings.words, findings.distinct_words, top.join(", "));
}

/// Where time and bytes went, in words.
pub(crate) fn print_costs(outcome: &Outcome) {
    let (tally, bytes) = (&outcome.tally, outcome.tally.bytes());
    println!("\n{:22}{:>8}{:>10}{:>12}{:>12}", "operator", "calls", "seconds", "MB/s", "run by");
    for (operator, name, who) in OPERATORS {
        let sum = tally.sums[operator as usize];
        let seconds = sum.ns as f64 / 1e9;
        let rate = sum.bytes_in as f64 / 1e6 / seconds.max(1e-9);
        println!("{name:22}{:>8}{seconds:>10.2}{rate:>12.0}{who:>12}", sum.calls);
    }
    let busy: f64 = tally.sums.iter().map(|sum| sum.ns as f64 / 1e9).sum();
    println!(
        "\n{:.2} s, {} tasks and calls in {} processes, which worked {busy:.2} s in sum",
        outcome.seconds,
        tally.tasks(),
        tally.processes()
    );
    println!(
        "bytes      {} read from files, {} put into the store (each result once, the only copy)",
        mib(bytes.read),
        mib(bytes.stored)
    );
    println!(
        "           {} of arguments read where they lie, {} written to the file",
        mib(bytes.in_place),
        mib(bytes.file)
    );
    if let Some(pid) = outcome.killed {
        println!("killed     process {pid}; actors made anew: {}", outcome.restarts);
    }
}

/// Both as JSON: `found` is the same for every run on the same files.
pub(crate) fn stats(corpus: &Corpus, outcome: &Outcome, top: &[(String, u64)]) -> Json {
    let (tally, bytes) = (&outcome.tally, outcome.tally.bytes());
    let operator = |(operator, name, _): &(Operator, &str, &str)| {
        let sum = tally.sums[*operator as usize];
        json!({"name": name, "calls": sum.calls, "seconds": sum.ns as f64 / 1e9, "bytes_in": sum.bytes_in, "bytes_out": sum.bytes_out})
    };
    let roots: Vec<_> = corpus.roots.iter().map(|root| root.path.display().to_string()).collect();
    let words: Vec<_> = top.iter().map(|(word, count)| json!({"word": word, "count": count})).collect();
    json!({
        "corpus": {"folders": roots, "files": corpus.paths.len(), "bytes": corpus.bytes, "copies": corpus.copies},
        "found": outcome.findings,
        "words": words,
        "run": {
            "seconds": outcome.seconds,
            "tasks": tally.tasks(),
            "processes": tally.processes(),
            "killed_pid": outcome.killed,
            "actor_restarts": outcome.restarts,
            "bytes_read": bytes.read,
            "bytes_stored": bytes.stored,
            "bytes_read_in_place": bytes.in_place,
            "bytes_written": bytes.file,
            "operators": OPERATORS.iter().map(operator).collect::<Vec<_>>(),
        },
    })
}
