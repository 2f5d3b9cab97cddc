//! The main job on real input: a corpus from disk, through operators on workers, to an Arrow file.
//!
//! ```text
//! make demo
//! cargo run --release -p raylet-client --example demo -- --help
//! ```
//!
//! The one thing to know: the same operators run a second time in one plain thread, and the demo fails
//! unless both runs found the same passages and words and wrote the same bytes. The files beside:
//! `corpus` (what is read), `operators` (what is done), `tasks`, `dedupe` and `job` (how workers do
//! it), `plain` and `ideal` (how it is done without them), `output` and `report` (what is left).
//! This file must stay an example: what it needs of the client is public.

mod corpus;
mod dedupe;
mod ideal;
mod job;
mod operators;
mod output;
mod plain;
mod report;
mod tasks;

use arrow_array::RecordBatch;
use clap::Parser;
use corpus::{Bounds, Corpus, Root};
use job::{Outcome, Victim};
use output::{Findings, Fingerprint};
use raylet_client::prelude::*;
use report::Progress;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Words that are listed as the most frequent.
const TOP_WORDS: usize = 50;
/// Differences that are shown, of each kind.
const DIFFERENCES_SHOWN: usize = 10;

/// Turns a folder of text into clean, unique passages, on all cores.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo")]
pub(crate) struct Arguments {
    /// Folders or files to read; by default Python's library and Rust's documentation
    folders: Vec<PathBuf>,
    /// Bytes of files to read, at most
    #[arg(long, default_value = "256M", value_parser = parse_bytes)]
    max_bytes: u64,
    /// How often the files are read; each copy's passages are marked
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// As often as it takes to so many bytes
    #[arg(long, value_parser = parse_bytes)]
    to_bytes: Option<u64>,
    /// Bytes of files in one batch
    #[arg(long, default_value = "4M", value_parser = parse_bytes)]
    batch_bytes: u64,
    /// Actors that share the hashes among them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    /// Run all tasks in this process, one after the other
    #[arg(long)]
    local: bool,
    /// Kill a process in the middle of the job
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "worker")]
    kill_one: Option<Victim>,
    /// Do not run the operators a second time to compare
    #[arg(long)]
    no_check: bool,
    /// Where the files go
    #[arg(long, default_value = "target/demo")]
    output: PathBuf,
    /// Only measure: the map operators, and the whole job
    #[arg(long)]
    measure: bool,
    /// Measure plain processes instead, one per core, each on its share
    #[arg(long)]
    ideal: bool,
    /// Print one line of JSON instead of text
    #[arg(long)]
    json: bool,
}

/// `1000`, `64K`, `64M`, `1G`, also written `64MiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1_u64 << 30,
        other => return Err(format!("{other:?} is no unit: K, M or G")),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{digits:?}: {error}"))?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?} is out of range"))
}

/// What was found differs from the plain run.
#[derive(Debug, thiserror::Error)]
#[error("the plain run found something else in {differences} places")]
pub(crate) struct Different {
    differences: usize,
}

fn main() -> ExitCode {
    ExitCode::from(program(std::env::args()))
}

/// The program; gives its exit code: 0, 1 when the work failed or the runs differ, 2 for bad arguments.
pub(crate) fn program(arguments: impl IntoIterator<Item = String>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help is for the standard output, an error for the other one; neither may fail the program.
            let _ = error.print();
            return error.exit_code() as u8;
        }
    };
    match run(&arguments) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("demo: {error}");
            1
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let roots = arguments.folders.iter().cloned().map(Root::folder).collect();
    let bounds = Bounds {
        max_bytes: arguments.max_bytes,
        repeat: arguments.repeat,
        to_bytes: arguments.to_bytes,
        portion_bytes: arguments.batch_bytes,
    };
    let corpus = Corpus::find(roots, &bounds)?;
    std::fs::create_dir_all(&arguments.output)?;
    match ideal::share() {
        Some((number, count)) => ideal::run_share(arguments, &corpus, number, count),
        None if arguments.ideal => measure_ideal(arguments, &corpus),
        None if arguments.measure => measure(arguments, &corpus),
        None => show(arguments, &corpus),
    }
}

/// A raylet with room for the corpus twice, as documents and as what is under way.
fn raylet(arguments: &Arguments, corpus: &Corpus) -> Result<Raylet> {
    let defaults = if arguments.local { Config { mode: Mode::Local, ..Config::default() } } else { Config::default() };
    let capacity_bytes = defaults.capacity_bytes.max(corpus.bytes * 2 + (256 << 20));
    Ok(Raylet::init(Config { capacity_bytes, ..defaults })?)
}

/// The job, its files, and the check.
fn show(arguments: &Arguments, corpus: &Corpus) -> Result<()> {
    let path = arguments.output.join("passages.arrow");
    let ray = raylet(arguments, corpus)?;
    let outcome = job(arguments, corpus, &ray, &path, arguments.json)?;
    drop(ray);
    let top = output::ranked(&outcome.words, TOP_WORDS)?;
    let stats = report::stats(corpus, &outcome, &top);
    let stats_path = arguments.output.join("stats.json");
    std::fs::write(&stats_path, serde_json::to_vec_pretty(&stats)?)?;
    if arguments.json {
        println!("{stats}");
    } else {
        report::print_findings(corpus, &outcome.findings, &top);
        report::print_costs(&outcome);
        println!("files      {} and {}", path.display(), stats_path.display());
    }
    if arguments.no_check { Ok(()) } else { check(arguments, corpus, &outcome, &path) }
}

fn job(arguments: &Arguments, corpus: &Corpus, ray: &Raylet, path: &Path, is_quiet: bool) -> Result<Outcome> {
    let progress = Progress::new(corpus.bytes, is_quiet);
    let out = BufWriter::new(File::create(path)?);
    let outcome = job::run(ray, corpus, arguments.shards, arguments.kill_one, out, &progress);
    progress.clear();
    outcome
}

/// Runs the operators again, plainly, and compares all that came of it.
fn check(arguments: &Arguments, corpus: &Corpus, outcome: &Outcome, path: &Path) -> Result<()> {
    let started = Instant::now();
    let mut written = Fingerprint::default();
    let (findings, words) = plain::run(corpus, corpus.portions.iter(), &mut written)?;
    let seconds = started.elapsed().as_secs_f64();
    let mut differences = differences(&outcome.findings, &findings)?;
    differences.extend(different_words(&outcome.words, &words)?);
    let (ours, plain) = (fingerprint(path)?, written.digits());
    if ours != plain {
        differences.push(format!("SHA-256 of the passages: {ours}, plainly {plain}"));
    }
    if differences.is_empty() {
        if !arguments.json {
            println!("checked    a plain run in one thread took {seconds:.2} s and found the same; SHA-256 {ours}");
        }
        return Ok(());
    }
    differences.iter().for_each(|difference| eprintln!("differs: {difference}"));
    Err(Different { differences: differences.len() }.into())
}

fn differences(ours: &Findings, plain: &Findings) -> Result<Vec<String>> {
    let (ours, plain) = (serde_json::to_value(ours)?, serde_json::to_value(plain)?);
    let fields = ours.as_object().into_iter().flatten();
    let different = fields.filter(|(name, value)| plain.get(name) != Some(value));
    Ok(different.map(|(name, value)| format!("{name}: {value}, plainly {}", plain[name])).collect())
}

fn different_words(ours: &RecordBatch, plain: &RecordBatch) -> Result<Vec<String>> {
    let (ours, plain) = (counts(ours)?, counts(plain)?);
    let count = |of: &BTreeMap<String, u64>, word: &str| of.get(word).copied().unwrap_or_default();
    let words = ours.keys().chain(plain.keys().filter(|word| !ours.contains_key(*word)));
    let different = words.filter(|word| ours.get(*word) != plain.get(*word));
    let say = |word: &String| format!("the word {word:?}: {}, plainly {}", count(&ours, word), count(&plain, word));
    Ok(different.take(DIFFERENCES_SHOWN).map(say).collect())
}

fn counts(words: &RecordBatch) -> Result<BTreeMap<String, u64>> {
    Ok(output::ranked(words, words.num_rows())?.into_iter().collect())
}

fn fingerprint(path: &Path) -> Result<String> {
    let mut written = Fingerprint::default();
    std::io::copy(&mut File::open(path)?, &mut written)?;
    Ok(written.digits())
}

/// Our times, beside those of [`measure_ideal`]: the whole includes starting the raylet.
fn measure(arguments: &Arguments, corpus: &Corpus) -> Result<()> {
    let path = arguments.output.join("measured.arrow");
    let started = Instant::now();
    let ray = raylet(arguments, corpus)?;
    let outcome = job(arguments, corpus, &ray, &path, true)?;
    let whole_seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    let map_seconds = job::map_seconds(&ray, corpus)?;
    let mode = if arguments.local { "local" } else { "raylet" };
    say_measured(arguments, corpus, (mode, outcome.tally.processes()), map_seconds, whole_seconds)
}

fn measure_ideal(arguments: &Arguments, corpus: &Corpus) -> Result<()> {
    let ideal = ideal::measure(job::cores())?;
    say_measured(arguments, corpus, ("ideal", ideal.processes), ideal.map_seconds, ideal.whole_seconds)
}

fn say_measured(
    arguments: &Arguments,
    corpus: &Corpus,
    (mode, processes): (&str, usize),
    map_seconds: f64,
    whole_seconds: f64,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let line = json!({
            "mode": mode,
            "processes": processes,
            "input_bytes": corpus.bytes,
            "map_seconds": map_seconds,
            "whole_seconds": whole_seconds,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let rate = |seconds: f64| corpus.bytes as f64 / 1e6 / seconds;
    let sizes = format!("{} by {processes} processes ({mode})", report::mib(corpus.bytes));
    let [map, whole] = [map_seconds, whole_seconds].map(rate);
    writeln!(
        out,
        "{sizes}: map operators {map_seconds:.3} s ({map:.0} MB/s), whole {whole_seconds:.3} s ({whole:.0} MB/s)"
    )?;
    Ok(())
}
