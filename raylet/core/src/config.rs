//! Limits and spans, each with its unit and its reason.
//!
//! The one thing to know: nothing in the core is unbounded, and each bound stands here. This file
//! must not read them from anywhere.

use serde::{Deserialize, Serialize};

/// What the node's owner may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Workers alive at once, whatever they do. A recursion without an end meets this, not the
    /// machine's process limit.
    pub workers_max: u32,
    /// How long every worker must have been blocked at the cap before requests are refused, in
    /// microseconds: actors' calls go by without the raylet, so "all blocked" may pass by itself.
    pub cap_patience_us: u64,
    /// Forks under way at once in one environment. A zygote forks one after the other anyway.
    pub starting_max: u32,
    /// Idle or starting workers to have ready in an environment that a driver uses.
    pub prestart: u32,
    /// Idle workers of an environment that never time out.
    pub idle_keep: u32,
    /// When other idle workers are retired, in microseconds.
    pub idle_timeout_us: u64,
    /// When a worker that is forked and not ready is killed, in microseconds: longer than anybody is
    /// stopped on purpose. Something in its executable hangs then, so it counts as half of the failures
    /// that are allowed.
    pub start_timeout_us: u64,
    /// Starts of one environment that may fail in a row before what waits for it is refused.
    pub start_failures_max: u32,
    /// Deaths of a zygote without a worker in between before what waits for it is refused.
    pub zygote_deaths_max: u32,
    /// Pause before a zygote's second restart in a row, in microseconds; doubles each time.
    pub zygote_delay_us_min: u64,
    /// The longest such pause, in microseconds.
    pub zygote_delay_us_max: u64,
    /// How much more use than a waiting one a lessee must have had to lose a lease, in
    /// microseconds of the lease. Short is fair, long is cheap.
    pub lease_slice_us: u64,
    /// How long a lease that was asked back is counted on, in microseconds: its worker may be in a
    /// long call, or stopped, and then another lease is taken as well.
    pub withdraw_patience_us: u64,
    /// How long a lease whose queue is empty stays although nobody else waits, in microseconds.
    pub lease_idle_us: u64,
    /// How long others may overtake a request that does not fit, in microseconds.
    pub overtake_us: u64,
    /// How long nobody may overtake it after that, in microseconds; then others have a turn again,
    /// because what it waits for may be waiting for them.
    pub hold_back_us: u64,
    /// How long something may wait for what actors, groups or blocked workers hold before its user is told, in
    /// microseconds: none of these has to end by itself.
    pub stuck_us: u64,
    /// By how much use two jobs may be apart before the rest is forgiven, in microseconds of the
    /// whole machine. Otherwise one long task would cost its job the next hours.
    pub lag_us_max: u64,
    /// What a grant costs at once, in microseconds, so that grants at one moment are shared out too.
    pub grant_cost_us: u64,
    /// Tasks that may wait or run at once through the raylet. At 200 bytes each, 2 GiB.
    pub tasks_max: usize,
    /// Actors alive or waiting at once.
    pub actors_max: usize,
    /// Placement groups at once.
    pub groups_max: usize,
    /// Queues of direct callers at once.
    pub queues_max: usize,
    /// Dead actors whose cause of death is still known.
    pub dead_actors_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers_max: 4_096,
            cap_patience_us: 1_000_000,
            starting_max: 16,
            prestart: 1,
            idle_keep: 2,
            idle_timeout_us: 1_000_000,
            start_timeout_us: 60_000_000,
            start_failures_max: 32,
            zygote_deaths_max: 5,
            zygote_delay_us_min: 10_000,
            zygote_delay_us_max: 1_000_000,
            lease_slice_us: 10_000,
            withdraw_patience_us: 20_000,
            lease_idle_us: 500_000,
            overtake_us: 100_000,
            hold_back_us: 1_000_000,
            stuck_us: 5_000_000,
            lag_us_max: 1_000_000,
            grant_cost_us: 20,
            tasks_max: 10_000_000,
            actors_max: 100_000,
            groups_max: 10_000,
            queues_max: 1_000_000,
            dead_actors_max: 1_000,
        }
    }
}
