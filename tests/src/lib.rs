//! What the tests of whole processes share: children, victims, a world to break, seeded chance.
//!
//! The one thing to know: a test that forks runs in a process of its own ([`alone::alone`]), because a
//! forked child becomes a client of every store that its parent has open. Nothing here may be used
//! by what ships.

pub mod alone;
pub mod chance;
pub mod mixed;
pub mod process;
pub mod reuse;
pub mod shared;
pub mod stepping;
pub mod world;

/// An error out of the box that the store returns it in, so that a pattern can name it.
pub trait Unboxed<T, E> {
    /// The same result, the error by itself.
    fn unboxed(self) -> Result<T, E>;
}

impl<T, E> Unboxed<T, E> for Result<T, Box<E>> {
    fn unboxed(self) -> Result<T, E> {
        self.map_err(|error| *error)
    }
}
