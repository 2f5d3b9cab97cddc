//! Seeded chance: the same seed gives the same choices.
//!
//! The one thing to know: a failing test prints its seed, and `RAYLET_SEED` sets it. It must not be
//! used for anything that has to be unpredictable.

/// A splitmix64 generator.
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The seed of this run: `RAYLET_SEED`, or the given one.
    pub fn seed_or(default: u64) -> u64 {
        std::env::var("RAYLET_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }

    /// One of the elements; the slice is not empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
