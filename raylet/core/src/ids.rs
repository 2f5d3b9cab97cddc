//! The names of everything the core decides about.
//!
//! The one thing to know: they are small numbers, chosen by the rim (tasks, queues, actors, groups,
//! drivers, environments) or counted up by the core (jobs, workers, classes). The long ids that
//! users see are the rim's to translate. This file must not give any of them a meaning.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", stringify!($name), self.0)
            }
        }
    };
}

id! {
    /// One call through the raylet. The rim never uses a number twice, not for a resubmission either.
    TaskId(u64)
}
id! {
    /// One actor, through all its restarts.
    ActorId(u64)
}
id! {
    /// One placement group.
    GroupId(u64)
}
id! {
    /// One queue of records in shared memory: one caller, one class.
    QueueId(u64)
}
id! {
    /// One worker process, counted up by the core and never used twice.
    WorkerId(u64)
}
id! {
    /// A driver's connection, as the rim numbers it.
    DriverId(u32)
}
id! {
    /// One driver's whole work, counted up by the core and never used twice.
    JobId(u32)
}
id! {
    /// What a zygote is made of: executable, language, environment. Workers of one environment are
    /// interchangeable; whoever wants a job to have workers of its own gives it its own environment.
    EnvId(u32)
}
id! {
    /// Functions that may share workers of one lease.
    FunctionGroup(u64)
}

impl FunctionGroup {
    /// In the number of a group whose functions change the workers that they run on.
    pub const OWN_WORKERS: u64 = 1 << 63;
}

id! {
    /// A scheduling class, numbered by the core.
    ClassId(u32)
}

/// An object that something waits for: its slot and generation in the object table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Where the object lies in the table.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u64,
}

/// Who submits: a driver, or a worker in the middle of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Caller {
    /// The driver of the job.
    Driver,
    /// A worker that runs something of the job.
    Worker(WorkerId),
}

/// A moment: microseconds since whatever the rim counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This moment, so many microseconds later.
    pub fn after(self, span_us: u64) -> Self {
        Self(self.0.saturating_add(span_us))
    }

    /// Microseconds since `earlier`, 0 if that lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
