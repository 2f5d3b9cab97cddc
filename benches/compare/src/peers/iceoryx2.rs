//! iceoryx2's publish-subscribe between two pinned, spinning processes.
//!
//! Setting: 100 bytes written into a loaned sample and their first line read at the other end; a
//! round trip is two of that, and a sample is half a round trip. Its files live under a prefix and a
//! directory of this run, and what a killed process leaves there is cleaned up at the end.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{
    Config, FileName, LogLevel, Node, NodeBuilder, SemanticString, SignalHandlingMode, ipc, set_log_level,
};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use tempfile::TempDir;

use crate::child::{HARNESS_CORE, OTHER_CORE, OwnedChild, end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::run::{Bench, Boxed};
use crate::scratch;
use crate::work::SMALL_BYTES;

type Payload = [u8; SMALL_BYTES];

/// The first byte of the sample that asks the other process to end.
const END: u8 = 0;
/// How long a spinning end waits before it gives the other up.
const SILENCE: Duration = Duration::from_secs(10);
/// Empty looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 1 << 16;

/// One end: what it says goes to `out`, what it hears comes from `heard`.
struct End {
    out: Publisher<ipc::Service, Payload, ()>,
    heard: Subscriber<ipc::Service, Payload, ()>,
    node: Node<ipc::Service>,
}

/// Half a round trip.
pub fn contender(bench: &Bench) -> Result<Option<Boxed>, BenchError> {
    let directory = scratch::on_disk()?;
    let end = End::open(directory.path(), "ping", "pong")?;
    let root = directory.path().display().to_string();
    let core = OTHER_CORE.to_string();
    let other = OwnedChild::start_role(&["iceoryx2-echo", "--root", &root, "--core", &core])?;
    let pair = Pair { end, other, directory };
    pair.await_other()?;
    let count = bench.effort.count(100_000);
    pair.other.pause();
    Ok(Some(Box::new(move || pair.round(count))))
}

struct Pair {
    end: End,
    other: OwnedChild,
    directory: TempDir,
}

impl Pair {
    /// Samples said before the other end listens are lost, so the first is repeated until answered.
    fn await_other(&self) -> Result<(), BenchError> {
        let start = Instant::now();
        while start.elapsed() < SILENCE {
            self.end.say(1)?;
            if self.end.hear_within(Duration::from_millis(20))?.is_some() {
                while self.end.hear_within(Duration::from_millis(20))?.is_some() {}
                return Ok(());
            }
        }
        Err(BenchError::Silent { waited_ms: SILENCE.as_millis() as u64 })
    }

    /// The other end spins, so it is stopped whenever it is not our turn.
    fn round(&self, count: usize) -> Result<Vec<f64>, BenchError> {
        self.other.resume();
        let samples = self.ping_pongs(count);
        self.other.pause();
        samples
    }

    fn ping_pongs(&self, count: usize) -> Result<Vec<f64>, BenchError> {
        pin_to_core(HARNESS_CORE);
        (0..count)
            .map(|turn| {
                let mark = (turn % 255) as u8 + 1;
                let start = Instant::now();
                self.end.say(mark)?;
                let heard = self.end.hear()?;
                let nanos = start.elapsed().as_nanos() as f64 / 2.0;
                if heard == mark { Ok(nanos) } else { Err(wrong(mark, heard)) }
            })
            .collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Asked to end, the other side removes its own files; what is left of a killed one goes below.
        self.other.resume();
        let _ = self.end.say(END);
        let start = Instant::now();
        while !self.other.has_ended() && start.elapsed() < SILENCE {
            std::thread::yield_now();
        }
        self.end.node.blocking_cleanup_dead_nodes(Duration::from_secs(1));
        // Its bookkeeping in shared memory outlives its nodes; the name is this run's alone.
        scratch::remove_shared(&run_name(self.directory.path()));
    }
}

fn wrong(expected: u8, found: u8) -> BenchError {
    BenchError::WrongBytes { expected: expected.into(), found: found.into() }
}

impl End {
    fn open(root: &Path, out: &str, heard: &str) -> Result<Self, BenchError> {
        set_log_level(LogLevel::Fatal);
        let config = private_config(root)?;
        let node = NodeBuilder::new()
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .map_err(refused("a node"))?;
        let out = topic(&node, out)?.publisher_builder().create().map_err(refused("a publisher"))?;
        let heard = topic(&node, heard)?.subscriber_builder().create().map_err(refused("a subscriber"))?;
        Ok(Self { out, heard, node })
    }

    fn say(&self, mark: u8) -> Result<(), BenchError> {
        let sample = self.out.loan_uninit().map_err(refused("loan"))?;
        sample.write_payload([mark; SMALL_BYTES]).send().map_err(refused("send"))?;
        Ok(())
    }

    /// The next sample's mark, its first line read.
    fn hear(&self) -> Result<u8, BenchError> {
        let silent = BenchError::Silent { waited_ms: SILENCE.as_millis() as u64 };
        self.hear_within(SILENCE)?.ok_or(silent)
    }

    fn hear_within(&self, patience: Duration) -> Result<Option<u8>, BenchError> {
        let mut start = None;
        loop {
            for _ in 0..LOOKS_PER_CLOCK {
                if let Some(sample) = self.heard.receive().map_err(refused("receive"))? {
                    let line = sample.payload().first_chunk::<64>().expect("a payload is longer than a line");
                    return Ok(Some(black_box(line)[0]));
                }
            }
            if start.get_or_insert_with(Instant::now).elapsed() > patience {
                return Ok(None);
            }
        }
    }
}

/// Everything under a directory and a prefix of this run.
fn private_config(root: &Path) -> Result<Config, BenchError> {
    let mut config = Config::default();
    let path = iceoryx2::prelude::Path::new(root.as_os_str().as_encoded_bytes());
    config.global.set_root_path(&path.map_err(refused("its directory"))?);
    config.global.prefix = FileName::new(run_name(root).as_bytes()).map_err(refused("its prefix"))?;
    Ok(config)
}

fn run_name(root: &Path) -> String {
    root.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn topic(node: &Node<ipc::Service>, name: &str) -> Result<PortFactory<ipc::Service, Payload, ()>, BenchError> {
    let name = name.try_into().map_err(refused("a service's name"))?;
    let service = node.service_builder(&name).publish_subscribe::<Payload>();
    service.open_or_create().map_err(refused("a service"))
}

fn refused<E: std::error::Error + Send + Sync + 'static>(step: &'static str) -> impl FnOnce(E) -> BenchError {
    move |error| BenchError::Iceoryx2 { step, source: Box::new(error) }
}

/// The other end: says back what it hears until asked to end.
pub fn echo(root: &Path, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    let end = End::open(root, "pong", "ping")?;
    while let Ok(Some(mark)) = end.hear_within(10 * SILENCE) {
        if mark == END {
            break;
        }
        end.say(mark)?;
    }
    Ok(())
}
