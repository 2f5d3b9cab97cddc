//! expect: a remote function cannot be generic

use raylet_client::prelude::*;

#[remote]
fn same<T>(x: T) -> T {
    x
}
