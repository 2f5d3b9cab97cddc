//! Whole processes on one store: random instants, what other stores got wrong, no system call.
//!
//! The one thing to know: every test here forks, so each runs in a process of its own (`alone!`). It
//! must not step through instructions: the crash tests do.

mod crowd;
mod gate;
mod lightning;
mod no_system_call;
mod small_shm;
mod soak;
mod unborn;
