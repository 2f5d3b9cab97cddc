//! Who runs what, when: the raylet's decisions, and nothing else.
//!
//! The one thing to know: [`Node::step`] takes the time and an [`Event`] and appends [`Effect`]s.
//! There is no clock, randomness, file, socket or process in here, and no order that depends on a
//! hash; so the same events give the same effects, under a simulation as in a replay. This crate
//! must not learn any of these: a test reads its sources.
//!
//! ```text
//!  Event --> noun's file (tasks, leases, actors, groups, pool, jobs) --> dispatch --> Effects
//!                                   |                                       |
//!                               jobs: lanes  <---- least used first ----  fair
//! ```
//!
//! # Invariants
//!
//! [`Node::check`] asserts them; the simulation calls it after every step.
//!
//! * N1 No grant takes what runs above capacity, of the machine or of a bundle. Only a worker that
//!   wakes may. What is taken is exactly what live workers and reserved bundles hold.
//! * N2 Every worker is in exactly one phase, and what it serves names it, too.
//! * N3 What is ready stands in its lane, once, under its turn; the first goes first.
//! * N4 Every accepted task waits, is ready, or runs on one worker, until it ends exactly once.
//! * N5 Counts and rates are what they count.
//! * N6 There are never more workers than the cap, those counted that are asked to go.
//! * N7 A name belongs to one live actor; a live actor has its own worker; an actor dies once.
//! * N8 A group's bundles are reserved all or none, and kept until nothing runs in them.
//! * N9 After a step, nobody waits for what is free, unless it is held back for who waited longer.
//!
//! # What it costs
//!
//! A step is O(streams that want something): tasks in line cost nothing, callers that wait for
//! workers one look each. A task that waits costs about 200 bytes.

#![forbid(unsafe_code)]

mod actors;
mod arguments;
mod check;
mod classes;
pub mod config;
mod dispatch;
pub mod effect;
pub mod event;
mod fair;
mod groups;
pub mod ids;
mod jobs;
mod leases;
pub mod listing;
mod node;
mod pool;
pub mod resources;
mod tasks;

pub use config::Config;
pub use effect::Effect;
pub use event::Event;
pub use ids::Time;
pub use node::Node;
pub use resources::Resources;
