//! The first program with tasks: two functions, three references, in local mode.
//!
//! The one thing to know: it is the README's program, so that the README's program runs.

use arrow_array::{RecordBatch, record_batch};
use raylet_client::prelude::*;

#[raylet_client::remote]
fn count(batch: RecordBatch) -> u64 {
    batch.num_rows() as u64
}

#[raylet_client::remote]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn main() -> Result<()> {
    let ray = Raylet::init(Config::default())?;
    let batch = ray.put(record_batch!(("number", Int64, [1, 2, 3]))?)?;
    let rows = count::remote(&ray, &batch)?;
    let twice = add::remote(&ray, &rows, &rows)?;
    assert_eq!(ray.get(&twice)?, 2 * ray.get(&rows)?);
    println!("{} rows, twice counted", ray.get(&rows)?);
    Ok(())
}
