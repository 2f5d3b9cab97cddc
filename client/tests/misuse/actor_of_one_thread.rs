//! expect: cannot be shared between threads safely

use raylet_client::prelude::*;

struct Shared(std::rc::Rc<u64>);

#[remote]
impl Shared {
    fn new() -> Shared {
        Shared(std::rc::Rc::new(1))
    }
    fn value(&self) -> u64 {
        *self.0
    }
}
