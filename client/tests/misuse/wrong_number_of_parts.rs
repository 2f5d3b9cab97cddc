//! expect: `num_returns` is 3, and this tuple has 2 parts

use raylet_client::prelude::*;

#[remote(num_returns = 3)]
fn pair() -> (u64, u64) {
    (1, 2)
}
