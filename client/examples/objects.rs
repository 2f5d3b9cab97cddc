//! Two processes and one object: `put` in one, `get` in the other.
//!
//! ```text
//! cargo run --example objects                starts a raylet in this process and prints what to do
//! cargo run --example objects -- <directory> <id>     reads the object, in another terminal
//! ```
//!
//! The one thing to know: the reader looks at the very memory the writer wrote; nothing is copied.
//! This file must stay an example.

use raylet_client::{Client, Config, ConnectOptions, ObjectId};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [] => write(),
        [directory, id] => read(directory, &id.parse()?),
        _ => Err("either nothing, or a session's directory and an object's id".into()),
    }
}

fn write() -> Result<(), Box<dyn Error>> {
    let driver = Client::embedded(&Config::embedded())?;
    let object = driver.put(&[7; 1_000_000])?;
    let directory = driver.session_directory().expect("it is embedded");
    println!("{} {}", directory.display(), object.id());
    println!("press return to end");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn read(directory: &str, id: &ObjectId) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(&ConnectOptions::at(directory))?;
    let object = client.get_by_id(id, Duration::from_secs(10))?;
    println!("{} bytes, the first is {}", object.len(), object[0]);
    Ok(())
}
