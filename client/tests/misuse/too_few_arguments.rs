//! expect: this function takes 3 arguments but 2 arguments were supplied

use raylet_client::prelude::*;

#[remote]
fn add(left: u64, right: u64) -> u64 {
    left + right
}

pub fn program(ray: &Raylet) {
    let _ = add::remote(ray, 1);
}
