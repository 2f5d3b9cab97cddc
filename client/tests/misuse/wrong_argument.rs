//! expect: a parameter of type `u64` does not accept a `&str`

use raylet_client::prelude::*;

#[remote]
fn add(left: u64, right: u64) -> u64 {
    left + right
}

pub fn program(ray: &Raylet) {
    let _ = add::remote(ray, 1, "2");
}
