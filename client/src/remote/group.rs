//! Placement groups: resources reserved together, all or nothing.
//!
//! The one thing to know: a group is named by an object that has a value once everything is reserved,
//! so waiting for it is waiting for an object. It stays until it is removed or its job ends, whoever
//! has handles. This file must not know where resources are.

use super::engine::GroupCall;
use super::{GroupError, Raylet};
use crate::engine::spec::object_key;
use crate::refs::ObjectRef;
use crate::task::{Options, OptionsError};
use raylet_api::record::ObjectKey;
use raylet_api::work::Demand;
use store::ObjectRef as RawRef;

/// How the bundles of a group are laid out. One machine is one node here, so all but
/// [`Strategy::StrictSpread`] of several bundles come to the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// As close together as can be.
    #[default]
    Pack,
    /// As far apart as can be.
    Spread,
    /// All on one node.
    StrictPack,
    /// Each on a node of its own.
    StrictSpread,
}

impl Strategy {
    const ALL: [Strategy; 4] = [Strategy::Pack, Strategy::Spread, Strategy::StrictPack, Strategy::StrictSpread];

    /// Of its name: one of `PACK`, `SPREAD`, `STRICT_PACK` and `STRICT_SPREAD`.
    pub fn of_name(name: &str) -> Option<Strategy> {
        Strategy::ALL.into_iter().find(|strategy| strategy.name() == name)
    }

    /// As messages have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Strategy::Pack => "PACK",
            Strategy::Spread => "SPREAD",
            Strategy::StrictPack => "STRICT_PACK",
            Strategy::StrictSpread => "STRICT_SPREAD",
        }
    }
}

/// Resources that are reserved together; see [`Raylet::placement_group`].
#[derive(Clone, Debug)]
pub struct PlacementGroup {
    ray: Raylet,
    object: RawRef,
    bundles: usize,
}

impl PlacementGroup {
    /// Is there once everything is reserved; an error where that can never be.
    pub fn ready(&self) -> ObjectRef<()> {
        ObjectRef::new(&self.ray, self.object.clone())
    }

    /// How many bundles it has.
    pub fn bundle_count(&self) -> usize {
        self.bundles
    }

    /// Gives everything back; what runs in it is ended.
    pub fn remove(&self) -> Result<(), GroupError> {
        self.ray.engine().remove_group(&self.object)
    }

    pub(crate) fn key(&self) -> ObjectKey {
        object_key(self.object.handle())
    }
}

impl Raylet {
    /// Reserves resources together: each bundle is what the resources of an [`Options`] say. Returns at
    /// once; what is submitted with [`Options::placement_group`] waits until it is ready.
    ///
    /// ```
    /// use raylet_client::prelude::*;
    ///
    /// # fn main() -> Result<()> {
    /// # let ray = Raylet::init(Config { mode: Mode::Local, ..Config::default() })?;
    /// let bundle = Options::new().num_cpus(1);
    /// let group = ray.placement_group(&[bundle.clone(), bundle], Strategy::Pack)?;
    /// ray.get(&group.ready())?;
    /// group.remove()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn placement_group(&self, bundles: &[Options], strategy: Strategy) -> Result<PlacementGroup, GroupError> {
        if bundles.is_empty() {
            return Err(GroupError::NoBundles);
        }
        bundles.iter().try_for_each(Options::check)?;
        let demands: Vec<Demand> = bundles.iter().map(demand).collect();
        if let Some(bundle) = demands.iter().position(Demand::is_empty) {
            return Err(GroupError::EmptyBundle { bundle });
        }
        let group = GroupCall { bundles: demands, strategy, name: String::new(), is_detached: false };
        let object = self.engine().create_group(group)?;
        Ok(PlacementGroup { ray: self.clone(), object, bundles: bundles.len() })
    }
}

/// What options ask for, and nothing that they do not name.
pub(crate) fn demand(options: &Options) -> Demand {
    let named = options.resource_units().map(|(name, amount)| (name.to_owned(), amount));
    let memory = options.memory_bytes.map(|bytes| ("memory".to_owned(), bytes));
    named.chain(memory).filter(|(_, amount)| *amount > 0).collect()
}

impl From<OptionsError> for GroupError {
    fn from(error: OptionsError) -> GroupError {
        GroupError::Options(error)
    }
}
