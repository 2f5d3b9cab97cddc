//! Calls of functions: a promise for each result, a record, and where that goes.
//!
//! The one thing to know: the usual call takes one lock, its queue's, and allocates nothing. This file
//! must not know what is in a queue.

use super::lane::{self, Lane, Submitted};
use super::plan::Plan;
use super::spec::{Head, Packed, pack};
use super::{ANSWER_TIME, Shared, lock};
use crate::remote::SubmitError;
use crate::remote::engine::Call;
use crate::task::{Arguments, Function, ResultRefs, Transport, with_scope};
use raylet_api::message::Message;
use raylet_api::record::{Kind, parent_of};
use raylet_api::work::{ClassWish, OpenQueue, QueueOpened};
use raylet_api::{JobId, ObjectId, TaskId};
use std::sync::Arc;
use store::{CreateError, Handle, ObjectRef as RawRef};

/// Objects that a submission looks at for tasks that wait.
const EDGE_LOOK: usize = 8;

impl Shared {
    #[inline]
    pub(super) fn submit(
        self: &Arc<Self>,
        function: &'static Function,
        call: Call<'_>,
    ) -> Result<ResultRefs, SubmitError> {
        match (call.options, self.plans.of(function)) {
            (None, Some(plan)) => self.submit_planned(plan, function.key, call),
            (options, _) => self.submit_planned(&Plan::of(function, options), function.key, call),
        }
    }

    pub(super) fn submit_planned(
        self: &Arc<Self>,
        plan: &Plan,
        key: u64,
        call: Call<'_>,
    ) -> Result<ResultRefs, SubmitError> {
        self.check()?;
        let (parent, number) = self.next_call();
        let results = self.promise(&TaskId::normal(parent.job(), &parent, number), call.results)?;
        let head = Head {
            key,
            kind: Kind::Task,
            retries_errors: plan.retries_errors,
            is_stream: call.is_stream,
            retries: plan.retries,
            number,
        };
        let packed = with_handles(&results, |handles| pack(&self.store, head, &call.arguments, handles))?;
        match plan.transport.unwrap_or(self.transport) {
            Transport::Direct => self.submit_direct(plan, packed, &results, call.arguments)?,
            Transport::Raylet => self.submit_routed(&plan.class, packed, &results, &call.arguments)?,
        }
        if let Some(timeout) = plan.timeout {
            self.end_after(timeout, &results);
        }
        Ok(results)
    }

    /// In whose name the thread submits, and the number of what it submits.
    pub(super) fn next_call(&self) -> (TaskId, u64) {
        let ours = || self.scope.id(&self.store).expect("the engine's own scope is made with an id");
        with_scope(|scope| match scope {
            Some(scope) => match scope.id(&self.store) {
                Some(task) => (task, scope.next()),
                // Its result is gone, so nobody asks for its id: any other will do.
                None => (ours(), self.scope.next()),
            },
            None => (ours(), self.scope.next()),
        })
    }

    /// The job of what the thread runs.
    pub(super) fn current_job(&self) -> JobId {
        let task = with_scope(|scope| scope.and_then(|scope| scope.id(&self.store)));
        task.map_or(self.job, |task| task.job())
    }

    /// References to the results of a call that is to be submitted.
    #[inline]
    pub(super) fn promise(&self, task: &TaskId, count: usize) -> Result<ResultRefs, Box<CreateError>> {
        let promise = |index: usize| {
            let id = ObjectId::of(task, index as u32 + 1);
            self.store.promise_by_handle(Some(&store::ObjectId::new(*id.as_bytes())))
        };
        match count {
            1 => promise(0).map(ResultRefs::One),
            _ => (0..count).map(promise).collect::<Result<_, _>>().map(ResultRefs::Many),
        }
    }

    #[inline]
    fn submit_direct(
        self: &Arc<Self>,
        plan: &Plan,
        packed: Packed,
        results: &ResultRefs,
        arguments: Arguments,
    ) -> Result<(), SubmitError> {
        let lane = match plan.lane.get() {
            Some(lane) => lane,
            None => self.open_lane(plan)?,
        };
        let mut call = lane::Call { words: packed.words, spec: packed.spec };
        if !arguments.awaited.iter().all(RawRef::is_ready) {
            let handles = with_handles(results, |handles| handles.to_vec());
            match self.frontier.wait(call, lane, handles, arguments.awaited) {
                None => return self.waits(),
                Some(ready) => call = ready,
            }
        }
        self.submit_to(lane, call);
        if !self.frontier.is_empty() {
            self.pump_frontier(EDGE_LOOK);
        }
        Ok(())
    }

    #[cold]
    fn waits(self: &Arc<Self>) -> Result<(), SubmitError> {
        self.pump_frontier(EDGE_LOOK);
        self.ensure_pump();
        Ok(())
    }

    #[inline]
    pub(super) fn submit_to(self: &Arc<Self>, lane: &Arc<Lane>, call: lane::Call) {
        let parent = parent_of(&call.words);
        match lane.submit(call, &self.line) {
            Submitted::Yes => {}
            Submitted::AndPump => self.lanes_left(),
            Submitted::Ended(calls) => self.fail_ended(lane, calls),
        }
        self.look_at_parent(parent);
    }

    #[cold]
    fn open_lane<'a>(&self, plan: &'a Plan) -> Result<&'a Arc<Lane>, SubmitError> {
        let lane = self.lane_of(&plan.class)?;
        Ok(plan.lane.get_or_init(|| lane))
    }

    /// The queue of a class; asks for one where there is none yet.
    fn lane_of(&self, class: &ClassWish) -> Result<Arc<Lane>, SubmitError> {
        // Others that want a queue wait: most likely it is the same one.
        let mut classes = lock(&self.classes);
        if let Some(lane) = classes.get(class) {
            return Ok(lane.clone());
        }
        let answer = self.line.ask(|request| OpenQueue { request, class: class.clone() }, ANSWER_TIME)?;
        let opened = match answer {
            Message::QueueOpened(opened) => opened,
            other => return Err(SubmitError::refused(other)),
        };
        let lane = self.open(opened, true)?;
        classes.insert(class.clone(), lane.clone());
        Ok(lane)
    }

    pub(super) fn open(&self, opened: QueueOpened, is_class: bool) -> Result<Arc<Lane>, SubmitError> {
        let queue = self.segment.queue(opened.offset)?;
        let lane = Arc::new(Lane::new(&self.store, opened.queue, queue, is_class)?);
        self.add_lane(&lane);
        Ok(lane)
    }
}

/// Calls `with` with the handles of results, without allocating for one.
#[inline]
pub(super) fn with_handles<R>(results: &ResultRefs, with: impl FnOnce(&[Handle]) -> R) -> R {
    match results {
        ResultRefs::One(one) => with(&[one.handle()]),
        ResultRefs::Many(many) => with(&many.iter().map(RawRef::handle).collect::<Vec<_>>()),
    }
}
