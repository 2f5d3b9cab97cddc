//! A lease: claims the records of one queue and runs them, until the raylet wants the worker back.
//!
//! The one thing to know: nothing goes over the line per record. The worker claims, runs and
//! finishes; with nothing to claim it looks for a while, announces itself on the queue's bell, looks
//! once more and sleeps. After [`IDLE_AFTER`] of sleep it says once that it is idle, and sleeps on. The
//! raylet takes it back by a message, which rings the bell; the worker then lets go, and looks *after
//! that* whether records wait: so of a record and the end of its service one is always seen. This
//! file must not know what a record asks for.

use super::inbox::Inbox;
use super::spin::Spin;
use raylet_api::message::Message;
use raylet_api::work::{Grant, LeaseBusy, LeaseIdle, LeaseReturned};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};
use store_shm::futex::WaitOutcome;
use store_shm::queue::{Broken, Claimed, Claimer, Queue};

/// After so long in vain a worker says that it is idle.
const IDLE_AFTER: Duration = Duration::from_millis(2);

/// See the head of the file.
pub(crate) struct Lease<'a> {
    inbox: &'a Inbox,
    say: &'a dyn Fn(Message),
    id: u64,
    claimer: Claimer,
    spin: &'a mut Spin,
    calls: u32,
    /// 0 is any number.
    calls_max: u32,
    has_said_idle: bool,
    is_over: bool,
}

impl<'a> Lease<'a> {
    /// `me` is the number by which a sweeper knows this process.
    pub(crate) fn new(
        grant: &Grant,
        queue: &Queue,
        me: u16,
        inbox: &'a Inbox,
        spin: &'a mut Spin,
        say: &'a dyn Fn(Message),
    ) -> Lease<'a> {
        let rung = queue.clone();
        inbox.listen_at(move || rung.bell().wake_all());
        let (id, calls_max) = (grant.queue, grant.calls_max);
        let claimer = Claimer::new(queue, me);
        Lease { inbox, say, id, claimer, spin, calls: 0, calls_max, has_said_idle: false, is_over: false }
    }

    /// Runs what comes by `run`, to the end of the lease.
    pub(crate) fn serve(mut self, mut run: impl FnMut(&Claimed)) {
        let served = self.claim_and_run(&mut run);
        self.inbox.listen_here();
        if let Err(error) = served {
            eprintln!("raylet: a queue of tasks cannot be read, and is served no more: {error}");
        }
        self.give_back();
    }

    fn claim_and_run(&mut self, run: &mut impl FnMut(&Claimed)) -> Result<(), Broken> {
        while !self.is_at_its_end() {
            let found = match self.claimer.claim()? {
                None => self.wait()?,
                found => found,
            };
            let Some(claimed) = found else { continue };
            if self.has_said_idle {
                self.busy();
            }
            run(&claimed);
            self.calls += 1;
            // Lost: whoever took this process for dead has dealt with the record.
            let _ = self.claimer.finish(claimed);
        }
        Ok(())
    }

    /// The raylet wants the worker back, or it has run as much as it may.
    #[inline]
    fn is_at_its_end(&mut self) -> bool {
        if self.inbox.has_news() {
            let id = self.id;
            let is_ours = |message: &Message| matches!(message, Message::Withdraw(withdraw) if withdraw.queue == id);
            self.is_over |= self.inbox.take(is_ours).is_some();
        }
        self.is_over || self.calls_max != 0 && self.calls >= self.calls_max
    }

    /// Looks, then sleeps, once; `None` if there is still nothing, or news.
    #[cold]
    fn wait(&mut self) -> Result<Option<Claimed>, Broken> {
        let (inbox, claimer) = (self.inbox, &mut self.claimer);
        let found = self.spin.until(|| match claimer.claim() {
            Ok(None) if inbox.has_news() => Some(Ok(None)),
            Ok(None) => None,
            found => Some(found),
        });
        match found {
            Some(found) => found,
            None => self.sleep(),
        }
    }

    fn sleep(&mut self) -> Result<Option<Claimed>, Broken> {
        let queue = self.claimer.queue().clone();
        let announced = queue.bell().announce();
        if self.inbox.has_news() {
            return Ok(None);
        }
        if let Some(claimed) = self.claimer.claim()? {
            return Ok(Some(claimed));
        }
        let asleep = Instant::now();
        let outcome = announced.sleep((!self.has_said_idle).then_some(IDLE_AFTER));
        let claimed = self.claimer.claim()?;
        match &claimed {
            Some(_) => {
                self.spin.woke_after(asleep.elapsed());
                self.claimer.pass_on()?;
            }
            None if outcome == WaitOutcome::TimedOut => self.idle(),
            None => {}
        }
        Ok(claimed)
    }

    fn idle(&mut self) {
        self.has_said_idle = true;
        (self.say)(LeaseIdle { queue: self.id }.into());
    }

    #[cold]
    fn busy(&mut self) {
        self.has_said_idle = false;
        (self.say)(LeaseBusy { queue: self.id }.into());
    }

    /// Lets go, and looks after that: the raylet has said before that one claimer less serves the
    /// queue, so who submits from now on asks for another.
    fn give_back(self) {
        let queue = self.claimer.queue();
        fence(Ordering::SeqCst);
        // Wakes the others as well, as a ring may have woken this worker, which does not look any more.
        let has_queued = queue.nudge().unwrap_or(false);
        (self.say)(LeaseReturned { queue: self.id, calls: self.calls, has_queued }.into());
    }
}
