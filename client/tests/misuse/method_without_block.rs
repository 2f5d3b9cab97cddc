//! expect: `remote` on a method needs `remote` on its impl block

use raylet_client::prelude::*;

struct Counter(u64);

impl Counter {
    #[remote]
    fn add(&mut self, n: u64) -> u64 {
        self.0 += n;
        self.0
    }
}
