//! expect: ObjectRef<String>`

use raylet_client::prelude::*;

#[remote]
fn add(left: u64, right: u64) -> u64 {
    left + right
}

pub fn program(ray: &Raylet, text: ObjectRef<String>) {
    let _ = add::remote(ray, 1, &text);
}
