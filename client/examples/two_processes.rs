//! Two processes and one object: what the store does, on your machine, in a few seconds.
//!
//! ```text
//! cargo run --release --example two_processes
//! ```
//!
//! The one thing to know: the second process reads the very pages the first one wrote. It is this
//! executable again, started with the session's directory and the object's id. This file must stay
//! an example.

use raylet_client::{Client, Config, ConnectOptions, ObjectId, Store};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const BYTES: u64 = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

type Shown<T> = Result<T, Box<dyn Error>>;

fn main() -> Shown<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [] => show(),
        [directory, id] => read(Path::new(directory), &id.parse()?),
        _ => Err("this example takes no arguments".into()),
    }
}

fn show() -> Shown<()> {
    let client = Client::embedded(&Config::embedded())?;
    let directory = client.session_directory().expect("an embedded raylet has a session");
    println!("A raylet is running in {}.", directory.display());

    let mut writer = client.create(BYTES, &Default::default())?;
    writer.chunks_exact_mut(8).enumerate().for_each(|(at, word)| word.copy_from_slice(&(at as u64).to_le_bytes()));
    let start = Instant::now();
    let object = writer.seal();
    println!("256 MiB were written in place; the seal that makes them an object took {:?}.", start.elapsed());

    let mut reader = Reader::start(&directory, &object.id())?;
    println!("Another process (pid {}): {}", reader.child.id(), reader.line()?);
    println!("It holds a view. The store knows: {}", holders(&client));

    let killed = Instant::now();
    reader.child.kill()?;
    reader.child.wait()?;
    while client.list().iter().any(|object| object.holders.iter().any(|holder| holder.pid == reader.child.id())) {
        if killed.elapsed() > PATIENCE {
            return Err("the dead process still holds the object".into());
        }
        std::thread::yield_now();
    }
    println!("It was killed. {:?} later nothing of it is left: {}", killed.elapsed(), holders(&client));

    drop(object);
    println!("The last reference is gone, and with it the object: {} objects live.", client.list().len());
    Ok(())
}

fn holders(store: &Store) -> String {
    let each = store.list().into_iter().flat_map(|object| object.holders);
    let text: Vec<String> = each
        .map(|holder| format!("pid {} ({} references, {} views)", holder.pid, holder.references, holder.pins))
        .collect();
    text.join(", ")
}

/// The second process.
struct Reader {
    child: Child,
    output: BufReader<ChildStdout>,
    _input: ChildStdin,
}

impl Reader {
    fn start(directory: &Path, id: &ObjectId) -> Shown<Reader> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(directory)
            .arg(id.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        let _input = child.stdin.take().expect("it was piped");
        Ok(Reader { child, output, _input })
    }

    fn line(&mut self) -> Shown<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// In the second process: reads in place, says so, and keeps its view until it is ended.
fn read(directory: &Path, id: &ObjectId) -> Shown<()> {
    let client = Client::connect(&ConnectOptions::at(directory))?;
    let start = Instant::now();
    let object = client.get_by_id(id, PATIENCE)?;
    let got = start.elapsed();
    let start = Instant::now();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let sum = object.chunks_exact(8).map(word).fold(0u64, u64::wrapping_add);
    let words = BYTES / 8;
    let right = sum == words * (words - 1) / 2;
    println!(
        "got it in {got:?}, summed it in place in {:?}: {}",
        start.elapsed(),
        if right { "right" } else { "WRONG" }
    );
    std::io::stdout().flush()?;
    // Ends with the writer, if that does not kill it first.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
