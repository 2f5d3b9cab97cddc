//! Who has which passage first: an actor, or several that share the hashes among them.
//!
//! The one thing to know: workers send hashes only, and get a bit for each. An actor notes for every
//! hash the place (batch, row) that it was first told, and batches are told in the corpus' order: so
//! the passage with the smallest place stays, however tasks were scheduled. The same question asked
//! again has the same answer, so an actor that died is made anew and told everything again.
//! This file must not see a passage.

use super::operators::{HASH_BYTES, is_set};
use super::tasks::Receipt;
use bytes::Bytes;
use raylet_client::prelude::*;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

/// Where a passage is: the number of its batch, and its row.
type Place = (u32, u32);

/// A hash needs no hashing; its upper half chose the shard.
#[derive(Default)]
struct LowerHalf(u64);

impl Hasher for LowerHalf {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }
}

/// The first place of each hash of one shard.
#[derive(Default)]
pub(crate) struct Seen {
    shard: u32,
    shards: u32,
    first: HashMap<u128, Place, BuildHasherDefault<LowerHalf>>,
}

#[remote]
impl Seen {
    pub(crate) fn new(shard: u32, shards: u32) -> Seen {
        Seen { shard, shards, first: HashMap::default() }
    }

    /// A bit for each hash of a batch: whether it is this shard's, and stands nowhere before.
    #[remote(num_returns = 2)]
    pub(crate) fn claim(&mut self, batch: u32, hashes: Bytes) -> (Bytes, Receipt) {
        let started = Instant::now();
        let bits = self.first_bits(batch, &hashes);
        let kept = bits.iter().map(|byte| byte.count_ones() as usize).sum();
        let receipt = Receipt::since(started, hashes.len() as u64, bits.len() as u64, kept);
        (Bytes::from(bits), receipt)
    }

    /// The process that it lives in.
    pub(crate) fn pid(&self) -> u32 {
        std::process::id()
    }
}

impl Seen {
    /// See [`Seen::claim`].
    pub(crate) fn first_bits(&mut self, batch: u32, hashes: &[u8]) -> Vec<u8> {
        let (hashes, _) = hashes.as_chunks::<HASH_BYTES>();
        let mut bits = vec![0; hashes.len().div_ceil(8)];
        for (row, hash) in hashes.iter().enumerate() {
            let (hash, place) = (u128::from_le_bytes(*hash), (batch, row as u32));
            let is_first = self.is_ours(hash) && *self.first.entry(hash).or_insert(place) == place;
            bits[row / 8] |= u8::from(is_first) << (row % 8);
        }
        bits
    }

    fn is_ours(&self, hash: u128) -> bool {
        self.shards <= 1 || (hash >> 64) as u64 % u64::from(self.shards) == u64::from(self.shard)
    }
}

/// The answers of all shards to one question, to come.
pub(crate) type Answers = Vec<(ObjectRef<Bytes>, ObjectRef<Receipt>)>;

/// How often actors are made anew before a death is an error.
const RESTARTS_MAX: u32 = 3;

/// All shards, and what they were told.
pub(crate) struct Shards {
    actors: Vec<ActorHandle<Seen>>,
    told: Vec<ObjectRef<Bytes>>,
    /// How often the actors were made anew.
    pub(crate) restarts: u32,
}

impl Shards {
    /// So many actors.
    pub(crate) fn start(ray: &Raylet, shards: u32) -> Result<Shards> {
        Ok(Shards { actors: actors(ray, shards)?, told: Vec::new(), restarts: 0 })
    }

    /// How many batches were told: the number of the next.
    pub(crate) fn told(&self) -> usize {
        self.told.len()
    }

    /// Tells the next batch of the corpus.
    pub(crate) fn claim(&mut self, hashes: ObjectRef<Bytes>) -> Result<Answers> {
        self.told.push(hashes);
        self.ask(self.told.len() - 1)
    }

    /// Asks for a batch that was told.
    pub(crate) fn ask(&self, batch: usize) -> Result<Answers> {
        let hashes = &self.told[batch];
        let ask = |actor: &ActorHandle<Seen>| Ok(actor.claim(batch as u32, hashes)?);
        self.actors.iter().map(ask).collect()
    }

    /// Makes the actors anew and tells them everything, after one has died.
    pub(crate) fn restart(&mut self, ray: &Raylet, death: FetchError) -> Result<()> {
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            return Err(death.into());
        }
        self.actors = actors(ray, self.actors.len() as u32)?;
        (0..self.told.len()).try_for_each(|batch| self.ask(batch).map(drop))
    }

    /// The process of the first actor.
    pub(crate) fn pid(&self, ray: &Raylet) -> Result<u32> {
        Ok(ray.get(&self.actors[0].pid()?)?)
    }

    /// Ends the first actor without its process, where all live in one.
    pub(crate) fn kill(&self, ray: &Raylet) {
        ray.kill(&self.actors[0]);
    }
}

fn actors(ray: &Raylet, shards: u32) -> Result<Vec<ActorHandle<Seen>>> {
    (0..shards).map(|shard| Ok(Seen::remote(ray, shard, shards)?)).collect()
}

/// Whether this is an actor's death, which can be helped.
pub(crate) fn is_death(error: &FetchError) -> bool {
    let FetchError::Task(error) = error else { return false };
    matches!(error.kind(), TaskErrorKind::ActorDied | TaskErrorKind::ActorUnavailable | TaskErrorKind::WorkerCrashed)
}

/// Each bit that any of the shards has set.
pub(crate) fn union(answers: &[Bytes]) -> Bytes {
    let [first, others @ ..] = answers else { return Bytes::new() };
    if others.is_empty() {
        return first.clone();
    }
    let rows = first.len() * 8;
    let any = |row: usize| answers.iter().any(|bits| is_set(bits, row));
    let byte = |at: usize| (0..8).fold(0, |byte, bit| byte | u8::from(any(at * 8 + bit)) << bit);
    Bytes::from((0..rows / 8).map(byte).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three batches in which some hashes stand twice.
    fn batches() -> Vec<Vec<u8>> {
        let hash = |number: u64| u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * 0x1_0000_0001_0000_0001;
        let batch = |numbers: &[u64]| numbers.iter().flat_map(|number| hash(*number).to_le_bytes()).collect();
        vec![batch(&[1, 2, 1, 3]), batch(&[4, 2, 5, 5, 6, 7, 8, 9, 1, 10]), batch(&[10, 11])]
    }

    const WANTED: [&[u8]; 3] = [&[0b1011], &[0b1111_0101, 0b10], &[0b10]];

    #[test]
    fn the_first_place_of_each_hash_stays() {
        let mut seen = Seen::new(0, 1);
        for (number, (batch, wanted)) in batches().iter().zip(WANTED).enumerate() {
            assert_eq!(seen.first_bits(number as u32, batch), wanted, "batch {number}");
        }
    }

    #[test]
    fn a_question_asked_again_has_the_same_answer() {
        let mut seen = Seen::new(0, 1);
        for round in 0..2 {
            for (number, (batch, wanted)) in batches().iter().zip(WANTED).enumerate() {
                assert_eq!(seen.first_bits(number as u32, batch), wanted, "batch {number} in round {round}");
            }
        }
    }

    #[test]
    fn shards_together_answer_as_one() {
        for shards in 1..5 {
            let mut all: Vec<Seen> = (0..shards).map(|shard| Seen::new(shard, shards)).collect();
            for (number, (batch, wanted)) in batches().iter().zip(WANTED).enumerate() {
                let answers: Vec<Bytes> =
                    all.iter_mut().map(|seen| Bytes::from(seen.first_bits(number as u32, batch))).collect();
                assert_eq!(union(&answers), wanted, "batch {number} of {shards} shards");
            }
        }
    }
}
