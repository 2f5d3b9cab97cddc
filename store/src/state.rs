//! The word that decides over an object: who may do what with an entry, in one atomic.
//!
//! ```text
//!  63   60 59        44 43                                  0
//! +-------+------------+-------------------------------------+
//! | state |  decider   |  generation (44 bits)               |
//! +-------+------------+-------------------------------------+
//! ```
//!
//! | state | decider | means | who may leave it, and how |
//! | --- | --- | --- | --- |
//! | free | none | the slot's owner may take it | owner: store writing or promised |
//! | promised | none | named, no value yet | a creator: CAS to writing; last releaser: CAS to forsaken |
//! | writing | creator | its creator alone fills it | creator: store sealed or dead; its sweeper: CAS to promised |
//! | sealed | none | the value stands | last releaser: CAS to condemned; spiller: CAS to spilling |
//! | condemned | last releaser | believed unheld, had a value | decider: CAS to dead; anyone who holds it: CAS to sealed; another last releaser: CAS to itself |
//! | forsaken | last releaser | as condemned, had no value | the same, back to promised |
//! | spilling | spiller | bytes are being copied out | spiller: CAS to unloading or sealed; whoever pins: CAS to sealed; last releaser: CAS to condemned |
//! | unloading | spiller | nobody pins, bytes leave memory | spiller or its sweeper: store sealed |
//! | dead | freer | unreachable, being taken apart | freer: store free with generation + 1; its sweeper: CAS to itself |
//!
//! The one thing to know: a process may end or stop between any two instructions, and the word
//! then still names who has to go on. Nothing here touches memory; it packs and unpacks.

/// Number of bits of the generation.
pub(crate) const GENERATION_BITS: u32 = 44;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
/// Low bits of a generation that tell the life of a slot from those around it.
pub(crate) const TAG_BITS: u32 = 40;
/// See [`TAG_BITS`].
pub(crate) const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
const DECIDER_SHIFT: u32 = GENERATION_BITS;
const STATE_SHIFT: u32 = 60;

/// What an entry is in; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Free = 0,
    Promised = 1,
    Writing = 2,
    Sealed = 3,
    Condemned = 4,
    Forsaken = 5,
    Spilling = 6,
    Unloading = 7,
    Dead = 8,
}

impl State {
    pub(crate) const ALL: [State; 9] = [
        State::Free,
        State::Promised,
        State::Writing,
        State::Sealed,
        State::Condemned,
        State::Forsaken,
        State::Spilling,
        State::Unloading,
        State::Dead,
    ];
}

/// One reading of an entry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    /// The client the state names; zero where the table above says none.
    pub(crate) decider: u16,
    pub(crate) generation: u64,
}

impl Snapshot {
    pub(crate) const fn pack(self) -> u64 {
        (self.state as u64) << STATE_SHIFT | (self.decider as u64) << DECIDER_SHIFT | self.generation & GENERATION_MASK
    }

    /// A state number that does not exist reads as dead: nobody touches such an entry.
    pub(crate) fn unpack(word: u64) -> Snapshot {
        let number = (word >> STATE_SHIFT) as usize;
        Snapshot {
            state: State::ALL.get(number).copied().unwrap_or(State::Dead),
            decider: (word >> DECIDER_SHIFT) as u16,
            generation: word & GENERATION_MASK,
        }
    }

    /// Whether `word` is sealed in a generation whose low bits are `tag`.
    #[inline(always)]
    pub(crate) const fn is_sealed_as(word: u64, tag: u64) -> bool {
        word & !(GENERATION_MASK & !TAG_MASK) == Snapshot::sealed(tag & TAG_MASK)
    }

    /// The generation alone, for who needs no more.
    pub(crate) const fn generation_of(word: u64) -> u64 {
        word & GENERATION_MASK
    }

    pub(crate) const fn sealed(generation: u64) -> u64 {
        Snapshot { state: State::Sealed, decider: 0, generation }.pack()
    }

    /// The same generation in another state, decided by `decider`.
    pub(crate) const fn to(self, state: State, decider: u16) -> u64 {
        Snapshot { state, decider, generation: self.generation }.pack()
    }

    /// The slot's next life.
    pub(crate) const fn freed(self) -> u64 {
        let generation = (self.generation + 1) & GENERATION_MASK;
        Snapshot { state: State::Free, decider: 0, generation }.pack()
    }

    /// What a hold that came in time turns the word into; `None` where there is nothing to save.
    pub(crate) fn rescued(self) -> Option<u64> {
        match self.state {
            State::Condemned | State::Spilling => Some(self.to(State::Sealed, 0)),
            State::Forsaken => Some(self.to(State::Promised, 0)),
            State::Free | State::Promised | State::Writing | State::Sealed => None,
            State::Unloading | State::Dead => None,
        }
    }

    /// What a last releaser turns the word into before it looks at the holders.
    pub(crate) fn condemned(self, decider: u16) -> Option<u64> {
        match self.state {
            State::Sealed | State::Condemned | State::Spilling => Some(self.to(State::Condemned, decider)),
            State::Promised | State::Forsaken => Some(self.to(State::Forsaken, decider)),
            State::Free | State::Writing | State::Unloading | State::Dead => None,
        }
    }

    /// Whether the object of this generation can still be named.
    pub(crate) fn lives(self) -> bool {
        !matches!(self.state, State::Free | State::Dead)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_packing() {
        for state in State::ALL {
            let snapshot = Snapshot { state, decider: 0xBEEF, generation: GENERATION_MASK - 3 };
            assert_eq!(Snapshot::unpack(snapshot.pack()), snapshot);
        }
    }

    #[test]
    fn unknown_state_numbers_read_as_dead() {
        for number in 9..16u64 {
            assert_eq!(Snapshot::unpack(number << STATE_SHIFT).state, State::Dead);
        }
    }

    #[test]
    fn a_rescue_gives_back_what_was_condemned() {
        for state in State::ALL {
            let before = Snapshot { state, decider: 0, generation: 7 };
            let Some(condemned) = before.condemned(9) else { continue };
            let condemned = Snapshot::unpack(condemned);
            assert_eq!(condemned.decider, 9);
            let back = Snapshot::unpack(condemned.rescued().expect("condemned words can be rescued"));
            let had_value = !matches!(state, State::Promised | State::Forsaken);
            assert_eq!(back.state, if had_value { State::Sealed } else { State::Promised });
            assert_eq!((back.decider, back.generation), (0, 7));
        }
    }

    #[test]
    fn the_generation_wraps_without_touching_the_state() {
        let last = Snapshot { state: State::Dead, decider: 5, generation: GENERATION_MASK };
        assert_eq!(Snapshot::unpack(last.freed()), Snapshot { state: State::Free, decider: 0, generation: 0 });
    }
}
