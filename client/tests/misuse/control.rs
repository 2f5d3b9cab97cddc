//! expect: nothing, it compiles

use raylet_client::prelude::*;

#[remote]
fn add(left: u64, right: u64) -> u64 {
    left + right
}

struct Counter(u64);

#[remote]
impl Counter {
    fn new() -> Counter {
        Counter(0)
    }
    fn add(&mut self, n: u64) -> u64 {
        self.0 += n;
        self.0
    }
}

pub fn program(ray: &Raylet) -> Result<u64> {
    let add: ObjectRef<u64> = add::remote(ray, 1, &2)?;
    Ok(ray.get(&Counter::remote(ray)?.add(&add)?)?)
}
