//! expect: its type must have a name

use raylet_client::prelude::*;

#[remote]
fn items() -> impl Iterator<Item = u64> {
    0..3
}
