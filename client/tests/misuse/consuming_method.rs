//! expect: the actor stays where it is: a method takes `&self` or `&mut self`

use raylet_client::prelude::*;

struct Counter(u64);

#[remote]
impl Counter {
    fn new() -> Counter {
        Counter(0)
    }
    fn end(self) -> u64 {
        self.0
    }
}
