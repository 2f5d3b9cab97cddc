//! expect: is private

mod counting {
    use raylet_client::prelude::*;

    pub struct Counter(u64);

    #[remote]
    impl Counter {
        pub fn new() -> Counter {
            Counter(0)
        }
        fn secret(&self) -> u64 {
            self.0
        }
    }
}

pub fn program(counter: &raylet_client::ActorHandle<counting::Counter>) {
    let _ = counter.secret();
}
