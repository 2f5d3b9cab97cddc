//! What the tests of whole processes share: children, victims, a world to break, seeded chance.
//!
//! The one thing to know: a test that forks runs in a process of its own ([`alone::alone`]), because a
//! forked child becomes a client of every store that its parent has open. Nothing here may be used
//! by what ships.

pub mod alone;
pub mod chance;
pub mod hostile;
pub mod mixed;
pub mod process;
pub mod reuse;
pub mod shared;
pub mod stepping;
pub mod world;
