//! expect: a stream is returned as `impl Iterator<Item = T>`

use raylet_client::prelude::*;

#[remote(stream)]
fn items() -> Vec<u64> {
    vec![1]
}
