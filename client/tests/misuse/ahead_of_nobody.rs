//! expect: say `stream`, too

use raylet_client::prelude::*;

#[remote(ahead = 3)]
fn item() -> u64 {
    1
}
