//! expect: the function owns it: take it by value

use raylet_client::prelude::*;

#[remote]
fn length(text: &str) -> usize {
    text.len()
}
