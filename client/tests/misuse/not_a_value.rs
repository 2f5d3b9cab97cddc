//! expect: `Local` cannot travel between processes

use raylet_client::prelude::*;

pub struct Local(std::rc::Rc<u64>);

#[remote]
fn take(local: Local) -> u64 {
    *local.0
}
