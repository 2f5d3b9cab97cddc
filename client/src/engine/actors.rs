//! Actors as their callers see them: made, called in order, let go of.
//!
//! The one thing to know: a process has one queue to each actor that it calls, opened at the first
//! call; the actor may not be alive yet. When the last handle of the process is gone and its calls are
//! answered, the raylet is told, and then the queue is closed: until then this process holds the actor, and a
//! handle that comes to it meanwhile takes the queue up again. Why an actor is dead the raylet says, once
//! asked; calls to it end with that. This file must not know how actors run.

use super::fail::{death, seal};
use super::lane::{self, Lane};
use super::line::LineError;
use super::plan::{demand_or_cpu, retries};
use super::scope::task_of;
use super::slots::SlotMap;
use super::spec::{Head, handle, object_key, pack};
use super::submit::with_handles;
use super::{ANSWER_TIME, Shared, lock};
use crate::actor::{self, Class};
use crate::binding::ActorWish;
use crate::remote::engine::{Call, GroupCall};
use crate::remote::group::demand;
use crate::remote::{GroupError, SubmitError};
use crate::task::{Arguments, Options, ResultRefs};
use raylet_api::message::Message;
use raylet_api::record::{Kind, ObjectKey};
use raylet_api::work::{
    ActorFound, AskActor, ClassWish, CreateActor, CreateGroup, FindActor, KillActor, OpenActorQueue, RefusalCode,
    ReleasedActor, RemoveGroup,
};
use raylet_api::{ActorId, Failure, JobId, ObjectId, TaskErrorKind, TaskId};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use store::{CreateError, Handle, ObjectRef as RawRef, Store};

/// The actors that this process has handles of.
///
/// A link is in one of both at any time, or its queue is closed: two links of one actor would be two
/// submitters of one queue. So it goes from one to the other, and comes to its end, under the lock of
/// `released`; whoever holds both locks took that of `known` first.
#[derive(Default)]
pub(super) struct Actors {
    known: Mutex<SlotMap<Arc<Link>>>,
    /// Those whose handles are gone and whose calls are not over.
    released: Mutex<Vec<Arc<Link>>>,
    released_count: AtomicUsize,
}

/// One actor.
pub(super) struct Link {
    key: ObjectKey,
    /// Held until the calls are over, so that the actor lives as long.
    anchor: Mutex<Option<RawRef>>,
    /// Handles of it in this process.
    handles: AtomicUsize,
    /// What calls need of it.
    about: OnceLock<About>,
    lane: OnceLock<Arc<Lane>>,
    /// One thread at a time opens the queue.
    opening: Mutex<()>,
    /// The bytes of the error that its calls end with.
    death: OnceLock<Vec<u8>>,
}

struct About {
    actor: ActorId,
    class: String,
    retries: i16,
}

impl Actors {
    fn link(&self, anchor: &RawRef) -> Arc<Link> {
        let mut known = lock(&self.known);
        let make = || self.taken_up(anchor).unwrap_or_else(|| Arc::new(Link::new(anchor)));
        known.entry(anchor.handle()).or_insert_with(make).clone()
    }

    /// What the last handle let go of, where it is not closed yet.
    fn taken_up(&self, anchor: &RawRef) -> Option<Arc<Link>> {
        if !self.has_released() {
            return None;
        }
        let mut released = lock(&self.released);
        let key = object_key(anchor.handle());
        let at = released.iter().position(|link| link.key == key)?;
        let link = released.remove(at);
        self.count_released(&released);
        *lock(&link.anchor) = Some(anchor.clone());
        Some(link)
    }

    fn count_released(&self, released: &[Arc<Link>]) {
        self.released_count.store(released.len(), Ordering::SeqCst);
    }

    /// Whether actors wait to be let go of.
    pub(super) fn has_released(&self) -> bool {
        self.released_count.load(Ordering::SeqCst) != 0
    }

    /// The actor that a queue leads to.
    pub(super) fn of_lane(&self, lane: &Arc<Lane>) -> Option<Arc<Link>> {
        let is_it = |link: &&Arc<Link>| link.lane.get().is_some_and(|other| Arc::ptr_eq(other, lane));
        let known = lock(&self.known);
        known.values().find(is_it).cloned().or_else(|| lock(&self.released).iter().find(is_it).cloned())
    }
}

impl Link {
    fn new(anchor: &RawRef) -> Link {
        Link {
            key: object_key(anchor.handle()),
            anchor: Mutex::new(Some(anchor.clone())),
            handles: AtomicUsize::new(0),
            about: OnceLock::new(),
            lane: OnceLock::new(),
            opening: Mutex::new(()),
            death: OnceLock::new(),
        }
    }

    /// Whether the results of all its calls stand.
    fn is_answered(&self) -> bool {
        self.lane.get().is_none_or(|lane| lane.is_answered())
    }

    /// Whether all its calls are over, which is a moment later.
    fn is_over(&self) -> bool {
        self.lane.get().is_none_or(|lane| lane.is_over())
    }

    fn class(&self) -> &str {
        self.about.get().map_or("an actor", |about| &about.class)
    }

    /// What its anchor says; an object that is none is an actor all the same, which nobody has.
    fn about(&self, store: &Store, anchor: &RawRef) -> &About {
        self.about.get_or_init(|| {
            let read = store.get(anchor).ok();
            let read = read.and_then(|bytes| rmp_serde::from_slice::<(u64, String, i32)>(&bytes).ok());
            let (_, class, count) = read.unwrap_or_default();
            About { actor: task_of(anchor).actor(), class, retries: retries(count) }
        })
    }
}

impl Shared {
    pub(super) fn create_actor(self: &Arc<Self>, class: &'static Class, call: Call<'_>) -> Result<RawRef, SubmitError> {
        let options = Options::merged(call.options, (class.options)());
        let wish = ActorWish { key: class.key, class: class.name.to_owned(), options, ..ActorWish::default() };
        self.create_foreign(&wish, call.arguments)
    }

    pub(super) fn create_foreign(
        self: &Arc<Self>,
        wish: &ActorWish,
        arguments: Arguments,
    ) -> Result<RawRef, SubmitError> {
        self.check()?;
        let options = &wish.options;
        let placing = wish.placing.as_ref().unwrap_or(options);
        let (parent, number) = self.next_call();
        let actor = ActorId::of(parent.job(), &parent, number);
        let anchor = self.put_anchor(actor, wish)?;
        let head =
            Head { key: wish.key, kind: Kind::Create, retries_errors: false, is_stream: false, retries: 0, number };
        // Held until the raylet has answered, as it then holds what it needs.
        let packed = pack(&self.store, head, &arguments, &[])?;
        let mut waits_for: Vec<ObjectKey> =
            arguments.awaited.iter().map(|object| object_key(object.handle())).collect();
        waits_for.sort_unstable();
        waits_for.dedup();
        let question = |request| CreateActor {
            request,
            anchor: object_key(anchor.handle()),
            class: ClassWish { demand: demand_or_cpu(placing), placement: options.placement, ..ClassWish::default() },
            running: demand(options),
            restarts_max: options.max_restarts.unwrap_or(0),
            concurrency_max: options.max_concurrency.unwrap_or(0),
            name: options.name.clone(),
            namespace: wish.namespace.clone().unwrap_or_else(|| self.namespace(parent.job())),
            get_if_exists: options.get_if_exists.unwrap_or(false),
            is_detached: options.is_detached.unwrap_or(false),
            waits_for,
            words: packed.words,
        };
        self.made(anchor.clone(), self.line.ask(question, ANSWER_TIME)?, options.name.as_deref())
    }

    /// The actor that the raylet's answer says there is.
    fn made(&self, anchor: RawRef, answer: Message, name: Option<&str>) -> Result<RawRef, SubmitError> {
        match answer {
            Message::ActorCreated(created) if created.anchor == object_key(anchor.handle()) => Ok(anchor),
            Message::ActorCreated(created) => {
                let other = self.store.refer(handle(created.anchor));
                // It ended on the way here.
                other.ok_or_else(|| SubmitError::NameTaken { name: name.unwrap_or_default().to_owned() })
            }
            Message::Refused(refused) if refused.code == RefusalCode::NameTaken => {
                Err(SubmitError::NameTaken { name: name.unwrap_or_default().to_owned() })
            }
            other => Err(SubmitError::refused(other)),
        }
    }

    fn put_anchor(&self, actor: ActorId, wish: &ActorWish) -> Result<RawRef, Box<CreateError>> {
        let id = ObjectId::of(&TaskId::actor_creation(actor), 1);
        let id = Some(store::ObjectId::new(*id.as_bytes()));
        let retries = wish.options.max_task_retries.unwrap_or(0);
        actor::anchor(wish.key, &wish.class, retries, wish.about.iter().cloned().collect()).put_as(&self.store, id)
    }

    /// In which a name means an actor.
    fn namespace(&self, job: JobId) -> String {
        self.namespace.clone().unwrap_or_else(|| format!("job-{}", job.number()))
    }

    pub(super) fn call_actor(
        self: &Arc<Self>,
        anchor: &RawRef,
        key: u64,
        call: Call<'_>,
    ) -> Result<ResultRefs, SubmitError> {
        self.check()?;
        let link = self.actors.link(anchor);
        let about = link.about(&self.store, anchor);
        let (parent, number) = self.next_call();
        let task = TaskId::actor_call(parent.job(), &parent, number, about.actor);
        let results = self.promise(&task, call.results)?;
        let options = call.options;
        let retries = options.and_then(|options| options.max_task_retries).map_or(about.retries, retries);
        let retries_errors = options.and_then(|options| options.retry_exceptions).unwrap_or(false);
        let head = Head { key, kind: Kind::Call, retries_errors, is_stream: call.is_stream, retries, number };
        let packed = with_handles(&results, |handles| pack(&self.store, head, &call.arguments, handles))?;
        let call = lane::Call { words: packed.words, spec: packed.spec };
        match self.actor_lane(&link)? {
            Some(lane) => self.submit_to(lane, call),
            None => self.fail_dead(&link, vec![call]),
        }
        if let Some(timeout) = options.and_then(|options| options.timeout) {
            self.end_after(timeout, &results);
        }
        Ok(results)
    }

    /// The queue to an actor; `None` where it is dead.
    fn actor_lane<'a>(&self, link: &'a Link) -> Result<Option<&'a Arc<Lane>>, SubmitError> {
        if let Some(lane) = link.lane.get() {
            return Ok(Some(lane));
        }
        let _one = lock(&link.opening);
        if let Some(lane) = link.lane.get() {
            return Ok(Some(lane));
        }
        if link.death.get().is_some() {
            return Ok(None);
        }
        let anchor = link.key;
        match self.line.ask(|request| OpenActorQueue { request, anchor }, ANSWER_TIME)? {
            Message::QueueOpened(opened) => {
                let lane = self.open(opened, false)?;
                Ok(Some(link.lane.get_or_init(|| lane)))
            }
            Message::Refused(refused) if refused.code == RefusalCode::NoSuchActor => Ok(None),
            other => Err(SubmitError::refused(other)),
        }
    }

    /// Ends calls to an actor that is dead with the reason, once that is known.
    #[cold]
    pub(super) fn fail_dead(self: &Arc<Self>, link: &Arc<Link>, calls: Vec<lane::Call>) {
        if let Some(death) = link.death.get() {
            return fail_calls(&self.store, &calls, death);
        }
        let (store, link, anchor) = (self.store.clone(), link.clone(), link.key);
        let calls = Arc::new(calls);
        let asked_for = calls.clone();
        let fail = move |answer: Result<Message, LineError>| {
            let death = link.death.get_or_init(|| death(answer, link.class()));
            fail_calls(&store, &asked_for, death);
        };
        if self.line.ask_then(|request| AskActor { request, anchor }, fail).is_err() {
            let failure = Failure::new(TaskErrorKind::ActorDied, "an actor", "the raylet has ended, and it with that");
            fail_calls(&self.store, &calls, &failure.to_bytes());
        }
    }

    pub(super) fn find_actor(&self, name: &str, namespace: Option<&str>) -> Option<RawRef> {
        self.check().ok()?;
        let namespace = namespace.map_or_else(|| self.namespace(self.current_job()), str::to_owned);
        let question = |request| FindActor { request, name: name.to_owned(), namespace };
        match self.line.ask(question, ANSWER_TIME).ok()? {
            Message::ActorFound(ActorFound { anchor: Some(anchor), .. }) => self.store.refer(handle(anchor)),
            _ => None,
        }
    }

    pub(super) fn kill(&self, anchor: &RawRef, no_restart: bool) {
        if self.check().is_err() {
            return;
        }
        let key = object_key(anchor.handle());
        let _ = self.line.send(KillActor { anchor: key, no_restart });
        // Answered behind it: a call after this one finds the actor dead.
        let _ = self.line.ask(|request| AskActor { request, anchor: key }, ANSWER_TIME);
    }

    /// One more handle.
    pub(super) fn retained_actor(&self, anchor: &RawRef) {
        self.actors.link(anchor).handles.fetch_add(1, Ordering::Relaxed);
    }

    /// One handle less, which has let go of its reference already.
    pub(super) fn released_actor(self: &Arc<Self>, anchor: Handle) {
        if self.is_forked.load(Ordering::Relaxed) {
            return;
        }
        let link = {
            let mut known = lock(&self.actors.known);
            let Some(link) = known.get(&anchor) else { return };
            if link.handles.fetch_sub(1, Ordering::Relaxed) > 1 {
                return;
            }
            let Some(link) = known.remove(&anchor) else { return };
            let mut released = lock(&self.actors.released);
            released.push(link.clone());
            self.actors.count_released(&released);
            link
        };
        self.let_go(&link);
    }

    /// The last handle is gone, unless another one came since.
    fn let_go(self: &Arc<Self>, link: &Arc<Link>) {
        let mut released = lock(&self.actors.released);
        let Some(at) = released.iter().rposition(|other| Arc::ptr_eq(other, link)) else { return };
        if self.finish_release(link) {
            released.remove(at);
            self.actors.count_released(&released);
        } else {
            drop(released);
            self.ensure_pump();
        }
    }

    /// Lets go of an actor once its calls are answered, and closes its queue once they are over: false
    /// before that.
    fn finish_release(&self, link: &Link) -> bool {
        if !link.is_answered() {
            return false;
        }
        let anchor = lock(&link.anchor).take();
        if let Some(anchor) = anchor {
            // First: the raylet looks whether anybody is left.
            drop(anchor);
            let _ = self.line.send(ReleasedActor { anchor: link.key });
        }
        if !link.is_over() {
            return false;
        }
        if let Some(lane) = link.lane.get() {
            self.remove_lane(lane);
            lane.close(&self.line);
        }
        true
    }

    /// Tells the raylet of actors whose last calls are over.
    pub(super) fn close_released(&self) {
        if !self.actors.has_released() {
            return;
        }
        let mut released = lock(&self.actors.released);
        released.retain(|link| !self.finish_release(link));
        self.actors.count_released(&released);
    }

    pub(super) fn create_group(&self, group: GroupCall) -> Result<RawRef, GroupError> {
        self.check()?;
        let (parent, number) = self.next_call();
        let id = ObjectId::of(&TaskId::normal(parent.job(), &parent, number), 1);
        let object = self.store.promise_by_handle(Some(&store::ObjectId::new(*id.as_bytes())));
        let object = object.map_err(SubmitError::from)?;
        let question = |request| CreateGroup {
            request,
            group: object_key(object.handle()),
            bundles: group.bundles,
            strategy: group.strategy.name().to_owned(),
            name: group.name,
            is_detached: group.is_detached,
        };
        match self.line.ask(question, ANSWER_TIME).map_err(SubmitError::from)? {
            Message::Done(_) => Ok(object),
            other => Err(SubmitError::refused(other).into()),
        }
    }

    pub(super) fn remove_group(&self, group: &RawRef) -> Result<(), GroupError> {
        self.check()?;
        let group = object_key(group.handle());
        Ok(self.line.send(RemoveGroup { group }).map_err(SubmitError::from)?)
    }
}

fn fail_calls(store: &Store, calls: &[lane::Call], death: &[u8]) {
    for call in calls {
        call.results(store).into_iter().for_each(|result| seal(store, result, death));
    }
}
