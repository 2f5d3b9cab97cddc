//! expect: an actor is made by `fn new(..) -> Self`, which is missing

use raylet_client::prelude::*;

struct Counter(u64);

#[remote]
impl Counter {
    fn value(&self) -> u64 {
        self.0
    }
}
