//! Request-response between two pinned, spinning processes: a call without a scheduler.
//!
//! Setting: a 64-bit word each way, written into loaned memory, one request at a time; a sample is
//! the whole call.

use std::path::Path;
use std::time::{Duration, Instant};

use iceoryx2::port::client::Client;
use iceoryx2::prelude::{Node, ipc};
use iceoryx2::service::port_factory::request_response::PortFactory;

use super::{SILENCE, Side, hear_within, open_node, refused, service_name};
use crate::child::{HARNESS_CORE, end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::plan::Made;
use crate::run::Bench;

/// The request that asks the other process to end.
const END: u64 = 0;

type Calls = PortFactory<ipc::Service, u64, (), u64, ()>;

/// A whole call.
pub fn contender(bench: &Bench) -> Made {
    let pair = Pair::start()?;
    let count = bench.effort.count(100_000);
    Ok(Some(Box::new(move || {
        pair.side.awake(|| {
            pin_to_core(HARNESS_CORE);
            (1..=count as u64).map(|mark| pair.call(mark)).collect()
        })
    })))
}

// The client and its node go first: they lie in the directory that the side removes.
struct Pair {
    client: Client<ipc::Service, u64, (), u64, ()>,
    node: Node<ipc::Service>,
    side: Side,
}

impl Pair {
    fn start() -> Result<Self, BenchError> {
        let side = Side::start("request-response")?;
        let node = open_node(side.root())?;
        let client = calls(&node)?.client_builder().create().map_err(refused("a client"))?;
        let pair = Self { client, node, side };
        pair.await_other()?;
        pair.side.rest();
        Ok(pair)
    }

    /// Requests made before the other end serves are lost, so the first is repeated until answered.
    fn await_other(&self) -> Result<(), BenchError> {
        let start = Instant::now();
        while start.elapsed() < SILENCE {
            if self.answer_within(1, Duration::from_millis(20))?.is_some() {
                return Ok(());
            }
        }
        Err(silent())
    }

    fn answer_within(&self, mark: u64, patience: Duration) -> Result<Option<u64>, BenchError> {
        let request = self.client.loan_uninit().map_err(refused("loan"))?;
        let pending = request.write_payload(mark).send().map_err(refused("send"))?;
        hear_within(patience, || {
            let response = pending.receive().map_err(refused("receive"))?;
            Ok(response.map(|response| *response.payload()))
        })
    }

    fn call(&self, mark: u64) -> Result<f64, BenchError> {
        let start = Instant::now();
        let found = self.answer_within(mark, SILENCE)?.ok_or_else(silent)?;
        let nanos = start.elapsed().as_nanos() as f64;
        (found == mark).then_some(nanos).ok_or(BenchError::WrongBytes { expected: mark, found })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let ask = || self.client.send_copy(END).map(drop).map_err(refused("send"));
        self.side.end(ask, &self.node);
    }
}

fn silent() -> BenchError {
    BenchError::Silent { waited_ms: SILENCE.as_millis() as u64 }
}

fn calls(node: &Node<ipc::Service>) -> Result<Calls, BenchError> {
    let service = node.service_builder(&service_name("calls")?).request_response::<u64, u64>();
    service.open_or_create().map_err(refused("a service"))
}

/// The other end: answers what it is asked with the same word.
pub fn echo(root: &Path, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    let node = open_node(root)?;
    let server = calls(&node)?.server_builder().create().map_err(refused("a server"))?;
    while let Some(request) = hear_within(10 * SILENCE, || server.receive().map_err(refused("receive")))? {
        if *request.payload() == END {
            break;
        }
        let response = request.loan_uninit().map_err(refused("loan"))?;
        response.write_payload(*request.payload()).send().map_err(refused("send"))?;
    }
    Ok(())
}
