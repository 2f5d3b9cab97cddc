//! expect: expected `ObjectRef<String>`, found `ObjectRef<u64>`

use raylet_client::prelude::*;

#[remote]
fn double(x: u64) -> u64 {
    x * 2
}

pub fn program(ray: &Raylet) -> Result<ObjectRef<String>> {
    let text: ObjectRef<String> = double::remote(ray, 1)?;
    Ok(text)
}
