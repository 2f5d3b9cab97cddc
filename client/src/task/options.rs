//! What a call may ask for besides its arguments.
//!
//! The one thing to know: every field has an absent state, so that options of a call go before those
//! of the attribute field by field. This file must not know what grants resources.

use crate::remote::group::PlacementGroup;
use raylet_api::work::BundleWish;
use std::time::Duration;

/// Resources are counted in these: one CPU is 10,000.
pub const RESOURCE_UNIT: u64 = 10_000;
/// The largest amount of one resource that a call may ask for.
const AMOUNT_MAX: f64 = 1e9;

/// What a task or actor needs and how it is treated; the default leaves everything to the raylet.
///
/// ```
/// use raylet_client::prelude::*;
///
/// let patient = Options::new().num_cpus(0.5).max_retries(5).name("patient");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub(crate) resources: Vec<(String, f64)>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) max_retries: Option<i32>,
    pub(crate) retry_exceptions: Option<bool>,
    pub(crate) max_calls: Option<u32>,
    pub(crate) max_restarts: Option<i32>,
    pub(crate) max_task_retries: Option<i32>,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) name: Option<String>,
    pub(crate) transport: Option<Transport>,
    pub(crate) placement: Option<BundleWish>,
    pub(crate) is_detached: Option<bool>,
    pub(crate) get_if_exists: Option<bool>,
}

/// How a task gets to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// Through shared memory to workers that the raylet has leased to the caller.
    #[default]
    Direct,
    /// Through the raylet, which picks a worker for each.
    Raylet,
}

/// Options that no raylet could carry out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Not a number, negative, or beyond all machines.
    #[error("{amount} of the resource {resource:?} cannot be had: between 0 and {maximum} can")]
    Amount {
        /// Which resource.
        resource: String,
        /// How much was asked.
        amount: f64,
        /// The most that can be said.
        maximum: f64,
    },
    /// A name of no characters.
    #[error("a name cannot be empty: leave it out")]
    EmptyName,
    /// A limit that lets nothing run.
    #[error("{field} = 0 would let nothing run: leave it out")]
    Zero {
        /// Which limit.
        field: &'static str,
    },
}

impl Options {
    /// Nothing asked for.
    pub fn new() -> Options {
        Options::default()
    }

    /// CPUs; a part of one is fine. One unless said otherwise.
    pub fn num_cpus(self, amount: impl Into<f64>) -> Options {
        self.resource("CPU", amount)
    }

    /// GPUs; a part of one is fine.
    pub fn num_gpus(self, amount: impl Into<f64>) -> Options {
        self.resource("GPU", amount)
    }

    /// A resource by its name.
    pub fn resource(mut self, name: impl Into<String>, amount: impl Into<f64>) -> Options {
        let (name, amount) = (name.into(), amount.into());
        self.resources.retain(|(other, _)| *other != name);
        self.resources.push((name, amount));
        self
    }

    /// Bytes of memory.
    pub fn memory_bytes(mut self, bytes: u64) -> Options {
        self.memory_bytes = Some(bytes);
        self
    }

    /// How often a task runs again after its worker died; 3 unless said otherwise, -1 without end.
    pub fn max_retries(mut self, count: i32) -> Options {
        self.max_retries = Some(count);
        self
    }

    /// Whether errors and panics are retried like deaths; not unless said otherwise.
    pub fn retry_exceptions(mut self, is_wanted: bool) -> Options {
        self.retry_exceptions = Some(is_wanted);
        self
    }

    /// After how many calls a worker is replaced.
    pub fn max_calls(mut self, count: u32) -> Options {
        self.max_calls = Some(count);
        self
    }

    /// How often an actor is made anew after it died; 0 unless said otherwise, -1 without end.
    pub fn max_restarts(mut self, count: i32) -> Options {
        self.max_restarts = Some(count);
        self
    }

    /// How often a call runs again on an actor that was made anew.
    pub fn max_task_retries(mut self, count: i32) -> Options {
        self.max_task_retries = Some(count);
        self
    }

    /// How many calls of one actor run at once: `&self` methods only, `&mut self` ones run alone.
    pub fn max_concurrency(mut self, count: u32) -> Options {
        self.max_concurrency = Some(count);
        self
    }

    /// After how long a call ends with an error.
    pub fn timeout(mut self, limit: Duration) -> Options {
        self.timeout = Some(limit);
        self
    }

    /// Of a task: what listings call it. Of an actor: the name others find it by.
    pub fn name(mut self, name: impl Into<String>) -> Options {
        self.name = Some(name.into());
        self
    }

    /// How a task gets to a worker; nothing of it shows but in time.
    pub fn transport(mut self, transport: Transport) -> Options {
        self.transport = Some(transport);
        self
    }

    /// Runs in what a placement group has reserved: in one of its bundles, counted from 0, or in any.
    pub fn placement_group(mut self, group: &PlacementGroup, bundle: impl Into<Option<u32>>) -> Options {
        self.placement = Some(BundleWish { group: group.key(), bundle: bundle.into() });
        self
    }

    /// Of an actor: it outlives its handles and its job, and is found by its name.
    pub fn detached(mut self) -> Options {
        self.is_detached = Some(true);
        self
    }

    /// Of an actor: where a living one has the name, that is the one.
    pub fn get_if_exists(mut self) -> Options {
        self.get_if_exists = Some(true);
        self
    }

    /// These, and where they say nothing what `defaults` say.
    pub(crate) fn or(self, defaults: Options) -> Options {
        let ours = self.resources.into_iter();
        let resources = ours.fold(defaults.clone(), |all, (name, amount)| all.resource(name, amount)).resources;
        Options {
            resources,
            memory_bytes: self.memory_bytes.or(defaults.memory_bytes),
            max_retries: self.max_retries.or(defaults.max_retries),
            retry_exceptions: self.retry_exceptions.or(defaults.retry_exceptions),
            max_calls: self.max_calls.or(defaults.max_calls),
            max_restarts: self.max_restarts.or(defaults.max_restarts),
            max_task_retries: self.max_task_retries.or(defaults.max_task_retries),
            max_concurrency: self.max_concurrency.or(defaults.max_concurrency),
            timeout: self.timeout.or(defaults.timeout),
            name: self.name.or(defaults.name),
            transport: self.transport.or(defaults.transport),
            placement: self.placement.or(defaults.placement),
            is_detached: self.is_detached.or(defaults.is_detached),
            get_if_exists: self.get_if_exists.or(defaults.get_if_exists),
        }
    }

    /// Those of a call, if it has any, before those of the attribute.
    pub(crate) fn merged(call: Option<&Options>, attribute: Options) -> Options {
        match call {
            Some(call) => call.clone().or(attribute),
            None => attribute,
        }
    }

    /// Whether a raylet could carry them out.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        for (resource, amount) in &self.resources {
            if !(0.0..=AMOUNT_MAX).contains(amount) {
                let (resource, amount) = (resource.clone(), *amount);
                return Err(OptionsError::Amount { resource, amount, maximum: AMOUNT_MAX });
            }
        }
        let limits = [("max_calls", self.max_calls), ("max_concurrency", self.max_concurrency)];
        if let Some((field, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(OptionsError::Zero { field });
        }
        if self.name.as_deref() == Some("") { Err(OptionsError::EmptyName) } else { Ok(()) }
    }

    /// Whether they say how much of a resource, be it nothing.
    pub(crate) fn names_resource(&self, name: &str) -> bool {
        self.resources.iter().any(|(named, _)| named == name)
    }

    /// What is asked of each resource, in units of 1 / [`RESOURCE_UNIT`].
    pub fn resource_units(&self) -> impl Iterator<Item = (&str, u64)> {
        self.resources.iter().map(|(name, amount)| (name.as_str(), (amount * RESOURCE_UNIT as f64).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_before_the_attribute_field_by_field() {
        let attribute = Options::new().num_cpus(2).resource("tape", 1).max_retries(1).name("old");
        let merged = Options::new().num_cpus(0.5).name("new").or(attribute);
        assert_eq!(merged.max_retries, Some(1));
        assert_eq!(merged.name.as_deref(), Some("new"));
        let mut units: Vec<_> = merged.resource_units().collect();
        units.sort();
        assert_eq!(units, [("CPU", 5_000), ("tape", 10_000)]);
    }

    #[test]
    fn impossible_options_are_refused() {
        for amount in [-1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert!(matches!(Options::new().num_gpus(amount).check(), Err(OptionsError::Amount { .. })), "{amount}");
        }
        assert_eq!(Options::new().name("").check(), Err(OptionsError::EmptyName));
        assert_eq!(Options::new().max_concurrency(0).check(), Err(OptionsError::Zero { field: "max_concurrency" }));
        assert_eq!(Options::new().num_cpus(0).name("fine").check(), Ok(()));
    }
}
