//! The queues of an actor's callers, and which call is next.
//!
//! The one thing to know: callers take turns, and each caller's calls come in its order. A call that
//! awaits an object without a value is set aside *with its caller*: nothing else of that caller is
//! claimed until the object is there, and everybody else goes on. All queues ring one bell, and so do
//! the objects that are awaited. This file must not know what a call does.

use super::Here;
use crate::engine::segment::Segment;
use crate::engine::spec::Unpacked;
use crate::worker::Seat;
use crate::worker::inbox::Inbox;
use crate::worker::run::{is_done, unpack};
use raylet_api::message::Message;
use raylet_api::work::{QueueDropped, RunActor};
use std::sync::Arc;
use std::task::{Wake, Waker};
use store_shm::SharedArray;
use store_shm::queue::{Bell, Broken, Claimed, Claimer, Queue};

/// A call that is ours to run.
#[derive(Debug)]
pub(in crate::worker) struct Call {
    /// What it asks for.
    pub(super) call: Unpacked,
    claimed: Claimed,
    queue: Queue,
}

impl Call {
    /// Attempts before this one.
    pub(super) fn attempt(&self) -> u32 {
        u32::from(self.claimed.attempt())
    }

    /// Its results are sealed.
    pub(super) fn finish(self) {
        // Lost: whoever took this process for dead has dealt with the record.
        let _ = self.queue.finish(self.claimed);
    }
}

/// Whose queue it is does not matter; that it is one caller's does.
#[derive(Debug)]
struct Caller {
    id: u64,
    claimer: Claimer,
    aside: Option<Call>,
    /// Of what the call set aside awaits, so many ring the bell when they are there.
    asked: usize,
}

/// See the head of the file.
pub(super) struct Callers<'a> {
    seat: &'a Seat,
    inbox: &'a Inbox,
    here: Arc<Here>,
    ring: Ring,
    waker: Waker,
    callers: Vec<Caller>,
    /// Who is asked first.
    turn: usize,
    /// The actor ends when nothing is left.
    is_ending: bool,
}

/// The bell that everything rings.
#[derive(Clone)]
pub(super) struct Ring {
    bells: SharedArray<Bell>,
    bell: usize,
}

impl Ring {
    /// A bell that the raylet names and that does not exist would be its mistake; the last one is
    /// taken then, and calls are found when somebody nudges.
    pub(super) fn of(segment: &Segment, bell: u32) -> Ring {
        let last = segment.bells.len().saturating_sub(1);
        Ring { bells: segment.bells.clone(), bell: (bell as usize).min(last) }
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bells[self.bell]
    }
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.bell().wake_all();
    }
}

impl<'a> Callers<'a> {
    pub(super) fn new(seat: &'a Seat, inbox: &'a Inbox, here: Arc<Here>, run: &RunActor) -> Callers<'a> {
        let ring = here.ring.clone();
        let rung = ring.clone();
        inbox.listen_at(move || rung.bell().wake_all());
        let waker = Waker::from(Arc::new(ring.clone()));
        let mut callers = Callers { seat, inbox, here, ring, waker, callers: Vec::new(), turn: 0, is_ending: false };
        run.queues.iter().for_each(|(id, offset)| callers.add(*id, *offset));
        // What came before the bell was named.
        callers.hear();
        callers
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The next call, if there is one that can run.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Call> {
        if self.here.is_leaving() {
            return None;
        }
        if self.inbox.has_news() {
            self.hear();
        }
        let count = self.callers.len();
        for step in 0..count {
            let at = if self.turn + step < count { self.turn + step } else { self.turn + step - count };
            let Some(call) = self.next_of(at) else { continue };
            self.turn = if at + 1 < count { at + 1 } else { 0 };
            return Some(call);
        }
        None
    }

    /// Whether the actor is to end, once [`Callers::next`] has nothing: no call waits for an object.
    pub(super) fn is_over(&self) -> bool {
        self.here.is_leaving() || self.is_ending && self.callers.iter().all(|caller| caller.aside.is_none())
    }

    /// Whether messages wait.
    pub(super) fn has_news(&self) -> bool {
        self.inbox.has_news()
    }

    #[inline]
    fn next_of(&mut self, at: usize) -> Option<Call> {
        let caller = self.callers.get_mut(at)?;
        if let Some(aside) = caller.aside.take() {
            return self.set_aside(at, aside);
        }
        loop {
            let claimed = match self.callers[at].claimer.claim() {
                Ok(claimed) => claimed?,
                Err(error) => {
                    self.give_up(at, error);
                    return None;
                }
            };
            if let Some(call) = self.read(at, claimed) {
                return self.run_or_set_aside(at, call);
            }
        }
    }

    /// What was claimed; `None` where nothing of it is left to be done.
    #[inline]
    fn read(&self, at: usize, claimed: Claimed) -> Option<Call> {
        let (store, queue) = (self.seat.ray.store(), self.callers[at].claimer.queue());
        let call = unpack(store, &claimed.payload).filter(|call| claimed.attempt() == 0 || !is_done(store, call));
        match call {
            Some(call) => Some(Call { call, claimed, queue: queue.clone() }),
            None => {
                let _ = queue.finish(claimed);
                None
            }
        }
    }

    #[inline]
    fn run_or_set_aside(&mut self, at: usize, call: Call) -> Option<Call> {
        if call.call.awaited.iter().all(|object| object.is_ready()) { Some(call) } else { self.set_aside(at, call) }
    }

    #[cold]
    fn set_aside(&mut self, at: usize, call: Call) -> Option<Call> {
        let caller = &mut self.callers[at];
        let asked = caller.asked;
        for (position, object) in call.call.awaited.iter().enumerate() {
            if position >= asked && !object.is_ready() {
                // Asked to be rung first, then looked again: a seal in between rings.
                self.seat.ray.engine().wake_when_ready(object, &self.waker);
                caller.asked = position + 1;
            }
            if !object.is_ready() {
                caller.aside = Some(call);
                return None;
            }
        }
        caller.asked = 0;
        Some(call)
    }

    /// Nothing can be claimed from a queue that is overwritten; its callers will be told by the raylet.
    #[cold]
    fn give_up(&mut self, at: usize, error: Broken) {
        let id = self.callers[at].id;
        eprintln!("raylet: queue {id} of an actor cannot be read, and is served no more: {error}");
        self.callers.remove(at);
        self.turn = 0;
    }

    #[cold]
    fn hear(&mut self) {
        let is_ours = |message: &Message| {
            matches!(message, Message::ServeQueue(_) | Message::DropQueue(_) | Message::EndWorker(_))
        };
        while let Some(message) = self.inbox.take(is_ours) {
            match message {
                Message::ServeQueue(serve) => self.add(serve.queue, serve.offset),
                Message::DropQueue(dropped) => self.remove(dropped.queue),
                _ => self.is_ending = true,
            }
        }
    }

    fn add(&mut self, id: u64, offset: u64) {
        if self.callers.iter().any(|caller| caller.id == id) {
            return;
        }
        match self.seat.segment.queue(offset) {
            Ok(queue) => {
                let claimer = Claimer::new(&queue, self.seat.me());
                self.callers.push(Caller { id, claimer, aside: None, asked: 0 });
            }
            Err(error) => eprintln!("raylet: queue {id} of an actor cannot be served: {error}"),
        }
    }

    fn remove(&mut self, id: u64) {
        self.callers.retain(|caller| caller.id != id);
        self.turn = 0;
        self.seat.say(QueueDropped { queue: id });
    }
}
