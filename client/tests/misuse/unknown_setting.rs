//! expect: `num_cpu` is no setting; there are: num_returns, crate, num_cpus

use raylet_client::prelude::*;

#[remote(num_cpu = 2)]
fn nothing() {}
