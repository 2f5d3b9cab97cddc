//! A client that is killed while it holds much.
//!
//! The one thing to know: the clock starts at the last look at a process descriptor of the harness's own
//! before the kernel says through it that the client is dead, and stops when the list of clients no longer has the dead one,
//! which is after its last hold is gone. The harness holds every object too, so nothing ends.

use std::hint::spin_loop;
use std::time::Instant;

use store_shm::liveness::{ProcessId, Watch};

use super::small::{Crowd, many};
use super::talk::Partner;
use crate::error::BenchError;
use crate::run::{Bench, Boxed};
use crate::store::work::DEAD_CLIENT_HOLDS;

/// Deaths of one round.
const DEATHS: usize = 4;

/// Nanoseconds until what a dead client held is given back.
pub(super) fn time_to_sweep(bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(DEAD_CLIENT_HOLDS, bench)?;
    let deaths = bench.effort.count(DEATHS);
    Ok(Box::new(move || (0..deaths).map(|_| nanos_of_death(&crowd)).collect()))
}

/// Holds a second that a sweep of a million gives back, the time to notice the death included.
pub(super) fn sweep_rate(bench: &Bench) -> Result<Boxed, BenchError> {
    let crowd = Crowd::new(many(bench), bench)?;
    Ok(Box::new(move || {
        let nanos = nanos_of_death(&crowd)?;
        Ok(vec![crowd.objects.len() as f64 * 1e9 / nanos])
    }))
}

/// When the last look began that found the process alive. A harness that lost its core between two
/// looks thus counts what it missed, instead of finding the sweep half done when it starts the clock.
fn last_look_alive(watch: &Watch) -> Instant {
    let mut start = Instant::now();
    loop {
        let look = Instant::now();
        if watch.is_dead() {
            return start;
        }
        start = look;
    }
}

fn nanos_of_death(crowd: &Crowd) -> Result<f64, BenchError> {
    let swept_before = crowd.store.usage().swept_holds;
    let mut holder = Partner::start("hold", &crowd.store)?;
    holder.talk.tell_objects(&crowd.objects)?;
    holder.talk.hear::<1>()?;
    let pid = holder.process.id();
    let watch = ProcessId::of(pid).and_then(Watch::open);
    let watch = watch.ok_or(BenchError::TooFew { what: "process descriptors", found: 0, wanted: 1 })?;
    holder.process.kill();
    let start = last_look_alive(&watch);
    while crowd.store.clients().iter().any(|client| client.pid == pid) {
        spin_loop();
    }
    let nanos = start.elapsed().as_nanos() as f64;
    let found = crowd.store.usage().swept_holds - swept_before;
    let wanted = crowd.objects.len() as u64;
    let what = "holds swept";
    (found >= wanted).then_some(nanos).ok_or(BenchError::TooFew { what, found, wanted })
}
