//! expect: is private

mod adding {
    use raylet_client::prelude::*;

    #[remote]
    fn add(left: u64, right: u64) -> u64 {
        left + right
    }
}

pub fn program(ray: &raylet_client::Raylet) {
    let _ = adding::add::remote(ray, 1, 2);
}
