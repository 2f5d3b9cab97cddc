//! Inputs for the readers of foreign bytes: valid ones, mutated.
//!
//! The one thing to know: [`work`] panics on a finding and says at which input; everything follows
//! from the seed. It must not wait for anything.

use raylet_api::{Hello, ListObjects, Message, ObjectsReply, StatusReply, Welcome};
use std::sync::atomic::{AtomicU64, Ordering};
use store::arrow::fuzz::{Mutator, fuzz_decode, seeds};
use store::fuzz::Scribbler;
use store::spill_file;

/// Inputs between two looks at the counter.
const BATCH: u64 = 256;

/// Who reads the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Arrow tables.
    Arrow,
    /// The tables of a store.
    Table,
    /// Spill files.
    Spill,
    /// Frames of the protocol.
    Frame,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [Target::Arrow, Target::Table, Target::Spill, Target::Frame];

    /// The target of a name in lower case.
    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| format!("{target:?}").eq_ignore_ascii_case(name))
    }
}

/// Says at which input a panic came.
struct Repeat<'a> {
    target: Target,
    seed: u64,
    done: &'a AtomicU64,
}

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let done = self.done.load(Ordering::Relaxed);
            eprintln!("{:?} seed {}: the input is one of the {BATCH} after number {done}", self.target, self.seed);
        }
    }
}

/// Gives `inputs` inputs to a target; counts them in `done`, by and by.
///
/// # Panics
///
/// On a finding.
pub fn work(target: Target, inputs: u64, seed: u64, done: &AtomicU64) {
    let _repeat = Repeat { target, seed, done };
    let mut random = Mutator::new(seed);
    match target {
        Target::Arrow => mutated(&seeds(), inputs, &mut random, done, |bytes| {
            std::hint::black_box(fuzz_decode(bytes));
        }),
        Target::Spill => mutated(&spill_seeds(), inputs, &mut random, done, spill_file::fuzz_read),
        Target::Frame => mutated(&frame_seeds(), inputs, &mut random, done, raylet_api::frame::fuzz_decode),
        Target::Table => {
            let mut scribbler = Scribbler::new();
            counted(inputs, done, || scribbler.input(&mut random));
        }
    }
}

fn mutated(seeds: &[Vec<u8>], inputs: u64, random: &mut Mutator, done: &AtomicU64, read: impl Fn(&[u8])) {
    let mut bytes = Vec::new();
    counted(inputs, done, || {
        random.mutate(seeds, &mut bytes);
        read(&bytes);
    });
}

fn counted(inputs: u64, done: &AtomicU64, mut input: impl FnMut()) {
    for number in 0..inputs {
        if number % BATCH == 0 {
            done.store(number, Ordering::Relaxed);
        }
        input();
    }
}

fn spill_seeds() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let seed = |bytes: usize| {
        spill_file::write(directory.path(), "seed", [5; 28], &vec![3; bytes]).expect("the disk has room");
        std::fs::read(directory.path().join("seed")).expect("it was just written")
    };
    [1, 100, 1000].map(seed).into()
}

/// A frame of each message that has something in it, and two in a row.
fn frame_seeds() -> Vec<Vec<u8>> {
    let messages: [Message; 5] = [
        Hello { label: "driver".into(), ..Hello::default() }.into(),
        Welcome::default().into(),
        StatusReply::default().into(),
        ListObjects::default().into(),
        ObjectsReply::default().into(),
    ];
    let mut frames: Vec<Vec<u8>> =
        messages.iter().map(|message| raylet_api::encode(message).expect("it fits a frame")).collect();
    frames.push(frames[..2].concat());
    frames
}
