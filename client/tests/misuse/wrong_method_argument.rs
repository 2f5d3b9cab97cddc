//! expect: a parameter of type `u64` does not accept a `bool`

use raylet_client::prelude::*;

struct Counter(u64);

#[remote]
impl Counter {
    fn new() -> Counter {
        Counter(0)
    }
    fn add(&mut self, n: u64) {
        self.0 += n;
    }
}

pub fn program(counter: &ActorHandle<Counter>) {
    let _ = counter.add(true);
}
