//! Publish-subscribe between two pinned, spinning processes.
//!
//! Setting: 100 bytes written into a loaned sample and their first line read at the other end; a
//! round trip is two of that, and a sample is half a round trip.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{Node, ipc};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use super::{SILENCE, Side, hear_within, open_node, refused, service_name};
use crate::child::{HARNESS_CORE, end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::plan::Made;
use crate::run::Bench;
use crate::store::work::SMALL_BYTES;

type Payload = [u8; SMALL_BYTES];

/// The first byte of the sample that asks the other process to end.
const END: u8 = 0;
/// One end: what it says goes to `out`, what it hears comes from `heard`.
struct End {
    out: Publisher<ipc::Service, Payload, ()>,
    heard: Subscriber<ipc::Service, Payload, ()>,
    node: Node<ipc::Service>,
}

/// Half a round trip.
pub fn contender(bench: &Bench) -> Made {
    let side = Side::start("publish-subscribe")?;
    let pair = Pair { end: End::open(side.root(), "ping", "pong")?, side };
    pair.await_other()?;
    pair.side.rest();
    let count = bench.effort.count(100_000);
    Ok(Some(Box::new(move || pair.side.awake(|| pair.ping_pongs(count)))))
}

// The end goes first: it lies in the directory that the side removes.
struct Pair {
    end: End,
    side: Side,
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
        self.side.end(|| self.end.say(END), &self.end.node);
    }
}

fn wrong(expected: u8, found: u8) -> BenchError {
    BenchError::WrongBytes { expected: expected.into(), found: found.into() }
}

impl End {
    fn open(root: &Path, out: &str, heard: &str) -> Result<Self, BenchError> {
        let node = open_node(root)?;
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
        hear_within(patience, || {
            let Some(sample) = self.heard.receive().map_err(refused("receive"))? else { return Ok(None) };
            let line = sample.payload().first_chunk::<64>().expect("a payload is longer than a line");
            Ok(Some(black_box(line)[0]))
        })
    }
}

fn topic(node: &Node<ipc::Service>, name: &str) -> Result<PortFactory<ipc::Service, Payload, ()>, BenchError> {
    let service = node.service_builder(&service_name(name)?).publish_subscribe::<Payload>();
    service.open_or_create().map_err(refused("a service"))
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
