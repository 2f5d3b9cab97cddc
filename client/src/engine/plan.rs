//! What a call of a function is, whatever its arguments: its options merged, its class, its queue.
//!
//! The one thing to know: the usual call has no options of its own, so its plan is made once for each
//! function, and found by the function's place in the linker's table. This file must not submit.

use super::lane::Lane;
use crate::remote::group::demand;
use crate::task::{FUNCTIONS, Function, Options, RESOURCE_UNIT, Transport};
use raylet_api::work::ClassWish;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Attempts after the first where nobody says otherwise.
const RETRIES: i32 = 3;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) class: ClassWish,
    pub(crate) retries: i16,
    pub(crate) retries_errors: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) transport: Option<Transport>,
    /// Once somebody submitted directly.
    pub(crate) lane: OnceLock<Arc<Lane>>,
}

impl Plan {
    pub(crate) fn of(function: &Function, options: Option<&Options>) -> Plan {
        Plan::with(function.key, Options::merged(options, (function.options)()))
    }

    /// Of a function of this key, with these options.
    pub(crate) fn with(key: u64, options: Options) -> Plan {
        let calls_max = options.max_calls.unwrap_or(0);
        Plan {
            class: ClassWish {
                group: if calls_max > 0 { key } else { 0 },
                demand: demand_or_cpu(&options),
                calls_max,
                placement: options.placement,
            },
            retries: retries(options.max_retries.unwrap_or(RETRIES)),
            retries_errors: options.retry_exceptions.unwrap_or(false),
            timeout: options.timeout,
            transport: options.transport,
            lane: OnceLock::new(),
        }
    }
}

/// What a worker needs: one CPU unless options say how many.
pub(crate) fn demand_or_cpu(options: &Options) -> raylet_api::work::Demand {
    let mut demand = demand(options);
    if !options.names_resource("CPU") {
        demand.insert("CPU".to_owned(), RESOURCE_UNIT);
    }
    demand
}

/// A number of retries as records have it.
pub(crate) fn retries(count: i32) -> i16 {
    if count < 0 { -1 } else { i16::try_from(count).unwrap_or(i16::MAX) }
}

/// The plans of all functions, as far as they were needed.
pub(crate) struct Plans(Box<[OnceLock<Plan>]>);

impl Plans {
    pub(crate) fn new() -> Plans {
        Plans((0..FUNCTIONS.len()).map(|_| OnceLock::new()).collect())
    }

    /// The plan of calls without options; `None` for a function that the linker has not gathered.
    #[inline]
    pub(crate) fn of(&self, function: &'static Function) -> Option<&Plan> {
        let start = FUNCTIONS.as_ptr() as usize;
        let place = (function as *const Function as usize).wrapping_sub(start) / size_of::<Function>();
        Some(self.0.get(place)?.get_or_init(|| Plan::of(function, None)))
    }
}
