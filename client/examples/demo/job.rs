//! The job: portions of the corpus through chains of tasks, a bounded number at once.
//!
//! The one thing to know: a portion's chain of map operators is submitted at once, as references to
//! results that are not there yet; the driver then waits for receipts alone. Two things happen in the
//! corpus' order, whatever order tasks end in: the actors are told a batch's hashes, and its kept
//! passages are written. So the result depends on no scheduling. This file must not touch text.
//!
//! | a portion | is | and then |
//! | --- | --- | --- |
//! | `Mapping` | read, stripped, normalised, filtered, sliced | `Mapped` |
//! | `Mapped` | waits until all before it have claimed | `Claiming` |
//! | `Claiming` | the actors say which of its passages are first | `Finishing` |
//! | `Finishing` | loses its duplicates, its words are counted | `Finished` |
//! | `Finished` | waits until all before it are written | written, and gone |

use super::corpus::{Corpus, Portion};
use super::dedupe::{self, Answers, Shards};
use super::operators::{self, WORDS_MERGED_AT_ONCE};
use super::output::{Findings, PassageFile};
use super::report::{Operator, Progress, Tally};
use super::tasks::{self, Receipt};
use arrow_array::RecordBatch;
use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use raylet_client::prelude::*;
use std::collections::VecDeque;
use std::io::Write;
use std::time::Instant;

/// Portions under way, for each core and beside: while the driver writes, nobody runs dry.
const PORTIONS_PER_CORE: usize = 2;
const PORTIONS_BESIDE: usize = 2;

/// Who is to be killed in the middle of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Victim {
    /// A worker that runs tasks.
    Worker,
    /// The worker that is an actor: the one who knows the hashes.
    Actor,
}

/// There is no process to kill.
#[derive(Debug, thiserror::Error)]
#[error("the tasks ran in the driver (pid {pid}), which has no worker to kill: leave out --local or --kill-one")]
pub(crate) struct NoWorker {
    pid: u32,
}

/// What came of it.
pub(crate) struct Outcome {
    /// What was found.
    pub(crate) findings: Findings,
    /// How often each word stands in the passages.
    pub(crate) words: RecordBatch,
    /// What it took.
    pub(crate) tally: Tally,
    /// Who was killed.
    pub(crate) killed: Option<u32>,
    /// How often actors were made anew.
    pub(crate) restarts: u32,
    /// From the first task to the last byte written.
    pub(crate) seconds: f64,
}

/// How many portions are under way at once.
fn window() -> usize {
    cores() * PORTIONS_PER_CORE + PORTIONS_BESIDE
}

/// Cores of this machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A portion's map operators, submitted.
#[derive(Clone)]
struct Mapped {
    passages: ObjectRef<RecordBatch>,
    hashes: ObjectRef<Bytes>,
    receipts: Vec<(Operator, ObjectRef<Receipt>)>,
}

/// Submits the chain of map operators on documents that may not be there yet.
fn map(ray: &Raylet, documents: &ObjectRef<RecordBatch>) -> Result<Mapped> {
    let (stripped, strip_receipt) = tasks::strip_markup::remote(ray, documents)?;
    let (normal, normalise_receipt) = tasks::normalise::remote(ray, &stripped)?;
    let (verdict, filter_receipt) = tasks::filter::remote(ray, &normal)?;
    let (passages, hashes, slice_receipt) = tasks::slice::remote(ray, &normal, &verdict)?;
    let receipts = vec![
        (Operator::Strip, strip_receipt),
        (Operator::Normalise, normalise_receipt),
        (Operator::Filter, filter_receipt),
        (Operator::Slice, slice_receipt),
    ];
    Ok(Mapped { passages, hashes, receipts })
}

/// Where a portion is; see the head of the file.
#[derive(Clone)]
enum Stage {
    Mapping(Mapped),
    Mapped(Mapped),
    Claiming { passages: ObjectRef<RecordBatch>, answers: Answers, restarts: u32 },
    Finishing { kept: ObjectRef<RecordBatch>, words: ObjectRef<RecordBatch>, receipts: [ObjectRef<Receipt>; 2] },
    Finished(ObjectRef<RecordBatch>),
}

impl Stage {
    /// What has to be there before it goes on, if it is a task's.
    fn awaited(&self) -> Option<&ObjectRef<Receipt>> {
        match self {
            Stage::Mapping(mapped) => mapped.receipts.last().map(|(_, receipt)| receipt),
            Stage::Claiming { answers, .. } => answers.last().map(|(_, receipt)| receipt),
            Stage::Finishing { receipts, .. } => receipts.last(),
            Stage::Mapped(_) | Stage::Finished(_) => None,
        }
    }
}

/// A portion under way.
struct Flight {
    number: usize,
    bytes: u64,
    stage: Stage,
}

/// The job while it runs.
struct Job<'a, W: Write> {
    ray: &'a Raylet,
    progress: &'a Progress,
    shards: Shards,
    flights: VecDeque<Flight>,
    words: WordTree,
    file: PassageFile<W>,
    findings: Findings,
    tally: Tally,
    victim: Option<Victim>,
    killed: Option<u32>,
}

/// Runs the job on the whole corpus.
pub(crate) fn run(
    ray: &Raylet,
    corpus: &Corpus,
    shards: u32,
    victim: Option<Victim>,
    out: impl Write,
    progress: &Progress,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut job = Job {
        ray,
        progress,
        shards: Shards::start(ray, shards)?,
        flights: VecDeque::new(),
        words: WordTree::default(),
        file: PassageFile::new(corpus, out)?,
        findings: Findings::default(),
        tally: Tally::default(),
        victim,
        killed: None,
    };
    job.portions(&corpus.portions)?;
    let words = job.words.finish(ray, &mut job.tally)?;
    job.file.finish()?.flush()?;
    job.findings.set_words(&words)?;
    let (findings, tally, killed, restarts) = (job.findings, job.tally, job.killed, job.shards.restarts);
    Ok(Outcome { findings, words, tally, killed, restarts, seconds: started.elapsed().as_secs_f64() })
}

impl<W: Write> Job<'_, W> {
    /// All portions, until the last is written.
    fn portions(&mut self, portions: &[Portion]) -> Result<()> {
        let mut left = portions.iter().enumerate();
        loop {
            while self.flights.len() < window()
                && let Some((number, portion)) = left.next()
            {
                self.start(number, portion)?;
            }
            if self.flights.is_empty() {
                return Ok(());
            }
            self.wait()?;
            self.claim_in_order()?;
            self.write_in_order()?;
            if self.shards.told() * 2 >= portions.len() {
                self.kill_one()?;
            }
        }
    }

    fn start(&mut self, number: usize, portion: &Portion) -> Result<()> {
        let (documents, receipt) = tasks::read::remote(self.ray, portion)?;
        let mut mapped = map(self.ray, &documents)?;
        mapped.receipts.insert(0, (Operator::Read, receipt));
        self.flights.push_back(Flight { number, bytes: portion.bytes, stage: Stage::Mapping(mapped) });
        Ok(())
    }

    /// Until one portion's tasks are done; it goes on, and so do the others that are ready.
    fn wait(&mut self) -> Result<()> {
        let awaited: Vec<_> = self.flights.iter().filter_map(|flight| flight.stage.awaited().cloned()).collect();
        if !awaited.is_empty() {
            self.ray.wait(&awaited, 1, None)?;
        }
        for at in 0..self.flights.len() {
            if self.flights[at].stage.awaited().is_some_and(ObjectRef::is_ready) {
                self.advance(at)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, at: usize) -> Result<()> {
        let (number, stage) = (self.flights[at].number, self.flights[at].stage.clone());
        self.flights[at].stage = match stage {
            Stage::Mapping(mapped) => {
                self.count_mapped(&mapped)?;
                Stage::Mapped(mapped)
            }
            Stage::Claiming { passages, answers, restarts } => self.answered(number, passages, &answers, restarts)?,
            Stage::Finishing { kept, words, receipts: [dropped, counted] } => {
                self.tally.add(Operator::DropDuplicates, self.ray.get(&dropped)?);
                self.tally.add(Operator::CountWords, self.ray.get(&counted)?);
                self.words.add(self.ray, words)?;
                Stage::Finished(kept)
            }
            waiting @ (Stage::Mapped(_) | Stage::Finished(_)) => waiting,
        };
        Ok(())
    }

    fn count_mapped(&mut self, mapped: &Mapped) -> Result<()> {
        for (operator, receipt) in &mapped.receipts {
            let receipt = self.ray.get(receipt)?;
            self.tally.add(*operator, receipt);
            match operator {
                Operator::Read => {
                    self.findings.documents += receipt.rows;
                    self.findings.files_skipped += receipt.skipped;
                    self.findings.bytes_read += receipt.bytes_in;
                }
                Operator::Filter => self.findings.documents_kept += receipt.rows,
                Operator::Slice => self.findings.passages += receipt.rows,
                _ => {}
            }
        }
        Ok(())
    }

    /// The actors have answered, or died: then they are made anew, once for all who see it, and asked
    /// again.
    fn answered(
        &mut self,
        number: usize,
        passages: ObjectRef<RecordBatch>,
        answers: &Answers,
        restarts: u32,
    ) -> Result<Stage> {
        let fetch = |(bits, receipt): &(ObjectRef<Bytes>, ObjectRef<Receipt>)| {
            Ok((self.ray.get(bits)?, self.ray.get(receipt)?))
        };
        let (bits, receipts): (Vec<Bytes>, Vec<Receipt>) = match answers.iter().map(fetch).collect() {
            Ok(all) => all,
            Err(error) if dedupe::is_death(&error) => {
                if restarts == self.shards.restarts {
                    self.shards.restart(self.ray, error)?;
                }
                let (answers, restarts) = (self.shards.ask(number)?, self.shards.restarts);
                return Ok(Stage::Claiming { passages, answers, restarts });
            }
            Err(error) => return Err(error.into()),
        };
        receipts.into_iter().for_each(|receipt| self.tally.add(Operator::Claim, receipt));
        let (kept, dropped) = tasks::drop_duplicates::remote(self.ray, &passages, dedupe::union(&bits))?;
        let (words, counted) = tasks::count_words::remote(self.ray, &kept)?;
        Ok(Stage::Finishing { kept, words, receipts: [dropped, counted] })
    }

    /// Tells the actors of each mapped portion before which none is still being mapped.
    fn claim_in_order(&mut self) -> Result<()> {
        for flight in &mut self.flights {
            match &flight.stage {
                Stage::Mapping(_) => break,
                Stage::Mapped(Mapped { passages, hashes, .. }) => {
                    debug_assert_eq!(self.shards.told(), flight.number, "the corpus' order");
                    let (passages, answers) = (passages.clone(), self.shards.claim(hashes.clone())?);
                    flight.stage = Stage::Claiming { passages, answers, restarts: self.shards.restarts };
                }
                Stage::Claiming { .. } | Stage::Finishing { .. } | Stage::Finished(_) => {}
            }
        }
        Ok(())
    }

    fn write_in_order(&mut self) -> Result<()> {
        while let Some(Flight { stage: Stage::Finished(kept), bytes, .. }) = self.flights.front() {
            let (started, bytes, passages) = (Instant::now(), *bytes, self.ray.get(kept)?);
            self.file.write(&passages, &mut self.findings)?;
            let written = operators::bytes_of(&passages);
            self.tally.add(Operator::Write, Receipt::since(started, written, written, passages.num_rows()));
            self.progress.advance(bytes, &self.findings);
            self.flights.pop_front();
        }
        Ok(())
    }

    /// Kills the victim, where there is one and nobody was killed yet.
    fn kill_one(&mut self) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        let pid = match victim {
            Victim::Worker => self.tally.last_worker(),
            Victim::Actor => self.shards.pid(self.ray)?,
        };
        match (pid == std::process::id(), victim) {
            (false, _) => match kill(Pid::from_raw(pid as i32), Signal::SIGKILL) {
                // It ended by itself: another one, next time.
                Err(Errno::ESRCH) => {
                    self.victim = Some(victim);
                    return Ok(());
                }
                killed => killed?,
            },
            // Without a process of its own it can still be ended.
            (true, Victim::Actor) => self.shards.kill(self.ray),
            (true, Victim::Worker) => return Err(NoWorker { pid }.into()),
        }
        self.progress.say(&format!("killed {victim:?} (pid {pid}) in the middle of the job"));
        self.killed = Some(pid);
        Ok(())
    }
}

/// Counts of words on their way to one: whenever there are enough of a level, a task merges them.
#[derive(Default)]
struct WordTree {
    levels: Vec<Vec<ObjectRef<RecordBatch>>>,
    receipts: Vec<ObjectRef<Receipt>>,
}

impl WordTree {
    fn add(&mut self, ray: &Raylet, words: ObjectRef<RecordBatch>) -> Result<()> {
        let mut carried = words;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(WORDS_MERGED_AT_ONCE));
            }
            let full = &mut self.levels[level];
            full.push(carried);
            let [a, b, c, d] = &full[..] else { return Ok(()) };
            let (merged, receipt) = tasks::merge_words::remote(ray, a, b, c, d)?;
            full.clear();
            self.receipts.push(receipt);
            carried = merged;
        }
        Ok(())
    }

    /// What no task merged, merged here.
    fn finish(self, ray: &Raylet, tally: &mut Tally) -> Result<RecordBatch> {
        let left: Vec<ObjectRef<RecordBatch>> = self.levels.into_iter().flatten().collect();
        let left = ray.get_all(&left)?;
        let started = Instant::now();
        let parts: Vec<&RecordBatch> = left.iter().collect();
        let merged = operators::merge_words(&parts)?;
        let bytes_in = left.iter().map(operators::bytes_of).sum();
        let receipt = Receipt::since(started, bytes_in, operators::bytes_of(&merged), merged.num_rows());
        tally.add(Operator::SumWords, receipt);
        for receipt in ray.get_all(&self.receipts)? {
            tally.add(Operator::MergeWords, receipt);
        }
        Ok(merged)
    }
}

/// How long the map operators take on documents that are in the store already.
pub(crate) fn map_seconds(ray: &Raylet, corpus: &Corpus) -> Result<f64> {
    let mut documents = VecDeque::new();
    for portion in &corpus.portions {
        let (batch, receipt) = tasks::read::remote(ray, portion)?;
        documents.push_back((batch, receipt));
    }
    documents.iter().try_for_each(|(_, receipt)| ray.get(receipt).map(drop))?;
    let started = Instant::now();
    let mut under_way: Vec<Mapped> = Vec::new();
    while !documents.is_empty() || !under_way.is_empty() {
        while under_way.len() < window()
            && let Some((batch, _)) = documents.pop_front()
        {
            under_way.push(map(ray, &batch)?);
        }
        let last = |mapped: &Mapped| mapped.receipts.last().map(|(_, receipt)| receipt.clone());
        let awaited: Vec<ObjectRef<Receipt>> = under_way.iter().filter_map(last).collect();
        ray.wait(&awaited, 1, None)?;
        let done = under_way.extract_if(.., |mapped| last(mapped).is_none_or(|receipt| receipt.is_ready()));
        done.flat_map(|mapped| last(&mapped)).try_for_each(|receipt| ray.get(&receipt).map(drop))?;
    }
    Ok(started.elapsed().as_secs_f64())
}
