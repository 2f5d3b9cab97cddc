//! One decision a test: what happens, what follows.
//!
//! The one thing to know: a [`Desk`] plays the rim: it starts what is to be started and keeps the
//! effects that say something, and every step is followed by all invariants. This file must not
//! test what the simulation does: what holds always.

use raylet_core::config::Config;
use raylet_core::effect::{DeathCause, KillReason, Refusal, Request, TaskEnd};
use raylet_core::event::{
    ActorName, ActorSpec, ClassSpec, GroupSpec, LeaseRequest, Placement, StillWanted, Strategy, TaskSpec,
};
use raylet_core::ids::{
    ActorId, Caller, DriverId, EnvId, FunctionGroup, GroupId, JobId, ObjectKey, QueueId, TaskId, WorkerId,
};
use raylet_core::resources::{Amount, Resources};
use raylet_core::{Effect, Event, Node, Time};

const ENV: EnvId = EnvId(0);
const JOB: JobId = JobId(1);

struct Desk {
    node: Node,
    now: u64,
}

impl Desk {
    fn new(cpus: u32) -> Self {
        Self::with(Config { prestart: 0, ..Config::default() }, Resources::cpus(Amount::whole(cpus)))
    }

    fn with(config: Config, capacity: Resources) -> Self {
        let mut desk = Self { node: Node::new(config, capacity).unwrap(), now: 0 };
        desk.tell(Event::DriverJoined { driver: DriverId(0), env: ENV });
        desk
    }

    /// Tells the node, has zygotes and workers start at once, and gives back all effects.
    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.now += 1;
        let mut all = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.node.step(Time(self.now), event, &mut effects);
            self.node.check();
            for effect in &effects {
                match effect {
                    Effect::StartZygote { env } => events.push(Event::ZygoteStarted { env: *env }),
                    Effect::StartWorker { worker, .. } => events.push(Event::WorkerStarted { worker: *worker }),
                    _ => {}
                }
            }
            all.extend(effects);
        }
        all
    }

    fn submit(&mut self, task: u64, class: ClassSpec) -> Vec<Effect> {
        self.tell(Event::Submit(spec(task, class)))
    }

    fn finish(&mut self, task: u64, worker: WorkerId) -> Vec<Effect> {
        self.tell(Event::TaskFinished { task: TaskId(task), worker })
    }

    fn die(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.tell(Event::WorkerDied { worker, wanted: StillWanted::default() })
    }
}

fn class(demand: Resources) -> ClassSpec {
    let function_group = FunctionGroup(1);
    ClassSpec { function_group, demand, env: ENV, placement: Placement::Machine, calls_max: 0 }
}

fn one_cpu() -> ClassSpec {
    class(Resources::cpus(Amount::ONE))
}

fn spec(task: u64, class: ClassSpec) -> TaskSpec {
    TaskSpec { task: TaskId(task), job: JOB, caller: Caller::Driver, class, retries_max: 3, waits_for: Vec::new() }
}

fn actor(actor: u64) -> ActorSpec {
    ActorSpec {
        actor: ActorId(actor),
        job: JOB,
        caller: Caller::Driver,
        class: one_cpu(),
        running: Resources::default(),
        restarts_max: 0,
        name: None,
        get_if_exists: false,
        is_detached: false,
        waits_for: Vec::new(),
    }
}

fn group(group: u64, bundles: u32, strategy: Strategy) -> Event {
    let bundles = vec![Resources::cpus(Amount::ONE); bundles as usize];
    let (group, job, caller) = (GroupId(group), JOB, Caller::Driver);
    Event::CreateGroup(GroupSpec { group, job, caller, bundles, strategy, is_detached: false })
}

fn lease(queue: u64, job: JobId, caller: Caller, wanted: u32) -> Event {
    let queue = QueueId(queue);
    Event::LeaseWanted(LeaseRequest { queue, job, caller, class: one_cpu(), wanted, backlog: 100 })
}

fn runs(effects: &[Effect]) -> Vec<(u64, WorkerId)> {
    let run = |effect: &Effect| match effect {
        Effect::RunTask { task, worker, .. } => Some((task.0, *worker)),
        _ => None,
    };
    effects.iter().filter_map(run).collect()
}

fn grants(effects: &[Effect]) -> Vec<(u64, WorkerId)> {
    let grant = |effect: &Effect| match effect {
        Effect::Grant { queue, worker, .. } => Some((queue.0, *worker)),
        _ => None,
    };
    effects.iter().filter_map(grant).collect()
}

fn actor_worker(effects: &[Effect]) -> WorkerId {
    let run = |effect: &Effect| match effect {
        Effect::RunActor { worker, .. } => Some(*worker),
        _ => None,
    };
    effects.iter().find_map(run).expect("the actor is placed")
}

#[test]
fn tasks_of_a_class_run_in_the_order_in_which_they_became_ready() {
    let mut desk = Desk::new(1);
    let object = ObjectKey { slot: 1, generation: 1 };
    let (_, worker) = runs(&desk.submit(1, one_cpu()))[0];
    desk.tell(Event::Submit(TaskSpec { waits_for: vec![object], ..spec(2, one_cpu()) }));
    desk.submit(3, one_cpu());
    desk.tell(Event::ArgumentReady { object });
    assert_eq!(runs(&desk.finish(1, worker)), [(3, worker)]);
    assert_eq!(runs(&desk.finish(3, worker)), [(2, worker)]);
}

#[test]
fn a_dead_workers_task_is_tried_three_more_times() {
    let mut desk = Desk::new(1);
    let mut effects = desk.submit(1, one_cpu());
    for _ in 0..3 {
        let (_, worker) = runs(&effects)[0];
        effects = desk.die(worker);
    }
    let (_, worker) = runs(&effects)[0];
    let end = Effect::TaskEnded { task: TaskId(1), end: TaskEnd::WorkerCrashed { attempts: 4 } };
    assert!(desk.die(worker).contains(&end));
}

#[test]
fn an_application_error_is_tried_again_only_if_the_worker_says_so() {
    let mut desk = Desk::new(1);
    let (_, worker) = runs(&desk.submit(1, one_cpu()))[0];
    let again = desk.tell(Event::TaskFailed { task: TaskId(1), worker, retry: true });
    assert_eq!(runs(&again), [(1, worker)]);
    let over = desk.tell(Event::TaskFailed { task: TaskId(1), worker, retry: false });
    assert!(over.contains(&Effect::TaskEnded { task: TaskId(1), end: TaskEnd::Failed }));
}

#[test]
fn cancel_ends_what_is_queued_at_once_and_interrupts_what_runs() {
    let mut desk = Desk::new(1);
    let (_, worker) = runs(&desk.submit(1, one_cpu()))[0];
    desk.submit(2, one_cpu());
    let queued = desk.tell(Event::Cancel { task: TaskId(2), force: false });
    assert!(queued.contains(&Effect::TaskEnded { task: TaskId(2), end: TaskEnd::Cancelled }));
    let running = desk.tell(Event::Cancel { task: TaskId(1), force: false });
    assert_eq!(running, [Effect::InterruptTask { task: TaskId(1), worker }]);
    let forced = desk.tell(Event::Cancel { task: TaskId(1), force: true });
    assert!(forced.contains(&Effect::KillWorker { worker, reason: KillReason::Cancelled }));
    assert!(desk.die(worker).contains(&Effect::TaskEnded { task: TaskId(1), end: TaskEnd::Cancelled }));
}

#[test]
fn recursion_200_deep_on_one_cpu_finishes() {
    let config = Config { prestart: 0, ..Config::default() };
    let mut desk = Desk::with(config, Resources::cpus(Amount::ONE));
    let mut workers = Vec::new();
    let mut effects = desk.submit(0, one_cpu());
    for level in 1..=200 {
        let (_, worker) = runs(&effects)[0];
        workers.push(worker);
        desk.tell(Event::Submit(TaskSpec { caller: Caller::Worker(worker), ..spec(level, one_cpu()) }));
        effects = desk.tell(Event::WorkerBlocked { worker });
    }
    let (_, last) = runs(&effects)[0];
    desk.finish(200, last);
    for level in (0..200).rev() {
        let worker = workers[level as usize];
        desk.tell(Event::WorkerWoken { worker });
        let end = Effect::TaskEnded { task: TaskId(level), end: TaskEnd::Finished };
        assert!(desk.finish(level, worker).contains(&end));
    }
}

#[test]
fn recursion_beyond_the_cap_is_refused_with_numbers() {
    let config = Config { prestart: 0, workers_max: 5, ..Config::default() };
    let mut desk = Desk::with(config, Resources::cpus(Amount::ONE));
    let mut effects = desk.submit(0, one_cpu());
    for level in 1..=5 {
        let (_, worker) = runs(&effects)[0];
        desk.tell(Event::Submit(TaskSpec { caller: Caller::Worker(worker), ..spec(level, one_cpu()) }));
        effects = desk.tell(Event::WorkerBlocked { worker });
    }
    desk.now += Config::default().cap_patience_us;
    let refusal = Refusal::WorkerCapReached { workers: 5, blocked: 5, actors: 0, limit: 5 };
    let end = Effect::TaskEnded { task: TaskId(5), end: TaskEnd::Refused(refusal) };
    assert!(desk.tell(Event::Tick).contains(&end));
}

#[test]
fn a_blocked_lease_gives_its_cpu_to_another_and_wakes_without_asking() {
    let mut desk = Desk::new(1);
    let first = grants(&desk.tell(lease(1, JOB, Caller::Driver, 1)));
    let [(1, parent)] = first[..] else { panic!("one worker: {first:?}") };
    assert_eq!(grants(&desk.tell(lease(2, JOB, Caller::Worker(parent), 1))), []);
    let second = grants(&desk.tell(Event::WorkerBlocked { worker: parent }));
    let [(2, child)] = second[..] else { panic!("the blocked one's own queue: {second:?}") };
    assert_ne!(parent, child);
    desk.tell(Event::WorkerWoken { worker: parent });
    assert_eq!(desk.node.resources().taken.cpu, Amount::whole(2));
    assert_eq!(runs(&desk.submit(1, one_cpu())), []);
}

#[test]
fn a_lease_that_found_nothing_goes_back_when_another_waits_or_time_passes() {
    let mut desk = Desk::new(1);
    let (_, worker) = grants(&desk.tell(lease(1, JOB, Caller::Driver, 1)))[0];
    let withdraw = Effect::Withdraw { worker, queue: QueueId(1) };
    assert_eq!(desk.tell(Event::LeaseIdle { worker, queue: QueueId(1) }), []);
    assert!(desk.submit(1, one_cpu()).contains(&withdraw));
    let returned = Event::LeaseReturned { worker, queue: QueueId(1), calls: 1, backlog: 0 };
    assert_eq!(runs(&desk.tell(returned)), [(1, worker)]);
    desk.finish(1, worker);
    let (_, worker) = grants(&desk.tell(lease(1, JOB, Caller::Driver, 1)))[0];
    desk.tell(Event::LeaseIdle { worker, queue: QueueId(1) });
    desk.now = desk.node.next_deadline().expect("the lease ends some time").0;
    assert!(desk.tell(Event::Tick).contains(&Effect::Withdraw { worker, queue: QueueId(1) }));
}

#[test]
fn a_lease_that_is_asked_back_is_counted_on_for_a_while_only() {
    let mut desk = Desk::new(2);
    let leases = grants(&desk.tell(lease(1, JOB, Caller::Driver, 2)));
    assert_eq!(leases.len(), 2);
    for (_, worker) in &leases {
        desk.tell(Event::LeaseIdle { worker: *worker, queue: QueueId(1) });
    }
    let asked_back = |effects: Vec<Effect>| {
        let worker = |effect: &Effect| if let Effect::Withdraw { worker, .. } = effect { Some(*worker) } else { None };
        effects.iter().filter_map(worker).collect::<Vec<_>>()
    };
    let first = asked_back(desk.submit(1, one_cpu()));
    assert_eq!(first.len(), 1, "one will do");
    assert_eq!(asked_back(desk.tell(Event::Tick)), []);
    desk.now += Config::default().withdraw_patience_us;
    let second = asked_back(desk.tell(Event::Tick));
    assert_eq!(second.len(), 1, "its worker may be stopped");
    assert_ne!(first, second);
    let returned = Event::LeaseReturned { worker: second[0], queue: QueueId(1), calls: 0, backlog: 0 };
    assert_eq!(runs(&desk.tell(returned)), [(1, second[0])]);
}

#[test]
fn workers_that_hang_before_they_are_ready_are_killed_and_what_waits_is_told() {
    let config = Config { prestart: 0, start_failures_max: 4, ..Config::default() };
    let limit = config.start_timeout_us;
    let mut node = Node::new(config, Resources::cpus(Amount::ONE)).unwrap();
    let mut step = |now: u64, event| {
        let mut effects = Vec::new();
        node.step(Time(now), event, &mut effects);
        node.check();
        (effects, node.next_deadline())
    };
    let started = |effects: &[Effect]| {
        let worker =
            |effect: &Effect| if let Effect::StartWorker { worker, .. } = effect { Some(*worker) } else { None };
        effects.iter().find_map(worker).expect("one is started")
    };
    let killed = |worker| Effect::KillWorker { worker, reason: KillReason::NotReady };
    let died = |worker| Event::WorkerDied { worker, wanted: StillWanted::default() };
    step(0, Event::DriverJoined { driver: DriverId(0), env: ENV });
    step(1, Event::Submit(spec(1, one_cpu())));
    let (effects, deadline) = step(2, Event::ZygoteStarted { env: ENV });
    let worker = started(&effects);
    assert!(deadline.is_some_and(|at| at <= Time(2 + limit)), "{deadline:?}");
    assert_eq!(step(1 + limit, Event::Tick).0, []);
    assert!(step(2 + limit, Event::Tick).0.contains(&killed(worker)));
    let worker = started(&step(3 + limit, died(worker)).0);
    assert!(step(3 + 2 * limit, Event::Tick).0.contains(&killed(worker)));
    let refusal = Refusal::WorkersDoNotStart { env: ENV, failures: 6 };
    let end = Effect::TaskEnded { task: TaskId(1), end: TaskEnd::Refused(refusal) };
    assert!(step(4 + 2 * limit, died(worker)).0.contains(&end));
}

#[test]
fn a_dead_leased_worker_gives_back_what_it_claimed_and_is_replaced() {
    let mut desk = Desk::new(1);
    let (_, worker) = grants(&desk.tell(lease(1, JOB, Caller::Driver, 1)))[0];
    let effects = desk.die(worker);
    assert!(effects.contains(&Effect::LeaseLost { worker, queue: QueueId(1) }));
    assert_eq!(grants(&effects).len(), 1);
}

#[test]
fn workers_are_forked_ahead_of_demand_and_retired_when_idle() {
    let config = Config { prestart: 2, idle_keep: 2, ..Config::default() };
    let timeout = config.idle_timeout_us;
    let mut desk = Desk::with(config, Resources::cpus(Amount::whole(4)));
    assert_eq!(desk.node.workers().count(), 2);
    let workers = (1..=4).map(|task| runs(&desk.submit(task, one_cpu()))[0].1).collect::<Vec<_>>();
    assert_eq!(desk.node.workers().count(), 6);
    for (task, worker) in (1..=4).zip(workers) {
        desk.finish(task, worker);
    }
    desk.now += timeout + 10;
    let retired = desk.tell(Event::Tick);
    let is_retired = |effect: &&Effect| matches!(effect, Effect::KillWorker { reason: KillReason::Idle, .. });
    assert_eq!(retired.iter().filter(is_retired).count(), 4);
}

#[test]
fn gpus_are_assigned_by_index_and_parts_share_one() {
    let capacity = Resources::cpus(Amount::whole(8)).with_gpus(Amount::whole(2));
    let mut desk = Desk::with(Config::default(), capacity);
    let indices = |effects: &[Effect]| {
        let gpus = effects.iter().find_map(|effect| match effect {
            Effect::RunTask { gpus, .. } => Some(gpus.clone()),
            _ => None,
        });
        gpus.map(|gpus| raylet_core::resources::cuda_visible_devices(&gpus))
    };
    let half = class(Resources::default().with_gpus(Amount(5_000)));
    let whole = class(Resources::default().with_gpus(Amount::ONE));
    assert_eq!(indices(&desk.submit(1, half.clone())).as_deref(), Some("0"));
    assert_eq!(indices(&desk.submit(2, whole.clone())).as_deref(), Some("1"));
    assert_eq!(indices(&desk.submit(3, half)).as_deref(), Some("0"));
    assert_eq!(indices(&desk.submit(4, whole)), None);
}

#[test]
fn what_can_never_fit_waits_and_is_reported_once() {
    let mut desk = Desk::new(1);
    let wanted = Resources::cpus(Amount::whole(99));
    let effects = desk.submit(1, class(wanted.clone()));
    let capacity = Resources::cpus(Amount::ONE);
    assert_eq!(effects, [Effect::Infeasible { request: Request::Task(TaskId(1)), wanted, capacity }]);
    assert_eq!(desk.tell(Event::Tick), []);
}

#[test]
fn what_waits_for_actors_alone_is_reported_once() {
    let is_stuck = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Stuck { .. }));
    let mut desk = Desk::new(1);
    desk.submit(1, one_cpu());
    desk.submit(2, one_cpu());
    desk.now += 60_000_000;
    assert!(!is_stuck(&desk.tell(Event::Tick)), "the task that runs will end");
    let mut desk = Desk::new(1);
    desk.tell(Event::CreateActor(ActorSpec { running: Resources::cpus(Amount::ONE), ..actor(1) }));
    desk.submit(2, one_cpu());
    assert!(!is_stuck(&desk.tell(Event::Tick)), "not yet");
    desk.now += 60_000_000;
    let effects = desk.tell(Event::Tick);
    let (wanted, capacity) = (Resources::cpus(Amount::ONE), Resources::cpus(Amount::ONE));
    let free = Resources::default();
    assert_eq!(effects, [Effect::Stuck { request: Request::Task(TaskId(2)), wanted, free, capacity }]);
    assert!(!is_stuck(&desk.tell(Event::Tick)));
}

#[test]
fn an_actor_needs_a_cpu_to_be_placed_and_none_to_live() {
    let mut desk = Desk::new(1);
    let (_, busy) = runs(&desk.submit(1, one_cpu()))[0];
    assert!(desk.tell(Event::CreateActor(actor(1))).is_empty());
    let worker = actor_worker(&desk.finish(1, busy));
    let alive = desk.tell(Event::ActorReady { actor: ActorId(1), worker });
    assert!(alive.contains(&Effect::ActorAlive { actor: ActorId(1), worker }));
    assert_eq!(runs(&desk.submit(2, one_cpu())).len(), 1);
}

#[test]
fn an_actor_is_restarted_as_often_as_it_may() {
    let mut desk = Desk::new(1);
    let worker = actor_worker(&desk.tell(Event::CreateActor(ActorSpec { restarts_max: 1, ..actor(1) })));
    let effects = desk.die(worker);
    assert!(effects.contains(&Effect::ActorRestarting { actor: ActorId(1), restarts: 1 }));
    let cause = DeathCause::WorkerDied { restarts: 1 };
    assert!(desk.die(actor_worker(&effects)).contains(&Effect::ActorDead { actor: ActorId(1), cause }));
}

#[test]
fn a_name_belongs_to_one_actor_until_it_is_dead() {
    let named = ActorName { namespace: "a".to_owned(), name: "b".to_owned() };
    let name = Some(named.clone());
    let mut desk = Desk::new(1);
    desk.tell(Event::CreateActor(ActorSpec { name: name.clone(), ..actor(1) }));
    let second = desk.tell(Event::CreateActor(ActorSpec { name: name.clone(), ..actor(2) }));
    let refusal = Refusal::NameTaken { by: ActorId(1) };
    assert_eq!(second, [Effect::Refuse { request: Request::Actor(ActorId(2)), refusal }]);
    let third = desk.tell(Event::CreateActor(ActorSpec { name, get_if_exists: true, ..actor(3) }));
    assert_eq!(third, [Effect::ActorExists { actor: ActorId(3), existing: ActorId(1) }]);
    desk.tell(Event::KillActor { actor: ActorId(1), no_restart: true });
    assert_eq!(desk.node.actor_named(&named), None);
}

#[test]
fn an_actor_without_handles_ends_after_its_calls_and_a_detached_one_does_not() {
    let mut desk = Desk::new(1);
    let worker = actor_worker(&desk.tell(Event::CreateActor(actor(1))));
    desk.tell(Event::ActorReady { actor: ActorId(1), worker });
    let gone = desk.tell(Event::ActorHandlesGone { actor: ActorId(1) });
    assert_eq!(gone, [Effect::EndActor { actor: ActorId(1), worker }]);
    let over = desk.tell(Event::ActorExited { actor: ActorId(1), worker });
    assert!(over.contains(&Effect::ActorDead { actor: ActorId(1), cause: DeathCause::HandlesGone }));
    desk.tell(Event::CreateActor(ActorSpec { is_detached: true, ..actor(2) }));
    assert_eq!(desk.tell(Event::ActorHandlesGone { actor: ActorId(2) }), []);
}

#[test]
fn a_driver_that_leaves_takes_its_work_along_but_for_what_others_want() {
    let mut desk = Desk::new(1);
    let (_, worker) = runs(&desk.submit(1, one_cpu()))[0];
    desk.submit(2, one_cpu());
    desk.submit(3, one_cpu());
    desk.tell(Event::CreateActor(actor(1)));
    let wanted = StillWanted { tasks: vec![TaskId(3)], queues: Vec::new() };
    let effects = desk.tell(Event::DriverLeft { job: JOB, wanted });
    assert!(effects.contains(&Effect::TaskEnded { task: TaskId(2), end: TaskEnd::JobOver }));
    assert!(effects.contains(&Effect::ActorDead { actor: ActorId(1), cause: DeathCause::JobOver }));
    assert!(effects.contains(&Effect::KillWorker { worker, reason: KillReason::JobOver }));
    let effects = desk.die(worker);
    assert!(effects.contains(&Effect::TaskEnded { task: TaskId(1), end: TaskEnd::JobOver }));
    let (_, worker) = runs(&effects)[0];
    assert!(desk.finish(3, worker).contains(&Effect::JobEnded { job: JOB }));
}

#[test]
fn a_group_is_reserved_whole_and_its_end_is_the_end_of_what_runs_in_it() {
    let mut desk = Desk::new(2);
    let (_, busy) = runs(&desk.submit(1, one_cpu()))[0];
    assert_eq!(desk.tell(group(1, 2, Strategy::StrictPack)), []);
    assert!(desk.finish(1, busy).contains(&Effect::GroupReady { group: GroupId(1) }));
    let inside = ClassSpec { placement: Placement::Group { group: GroupId(1), bundle: Some(1) }, ..one_cpu() };
    let (_, worker) = runs(&desk.submit(2, inside))[0];
    let removed = desk.tell(Event::RemoveGroup { group: GroupId(1) });
    assert_eq!(removed, [Effect::KillWorker { worker, reason: KillReason::GroupRemoved }]);
    let end = TaskEnd::GroupRemoved { group: GroupId(1) };
    let effects = desk.die(worker);
    assert!(effects.contains(&Effect::TaskEnded { task: TaskId(2), end }));
    assert!(effects.contains(&Effect::GroupRemoved { group: GroupId(1) }));
}

#[test]
fn strict_spread_of_two_is_infeasible_on_one_machine() {
    let mut desk = Desk::new(8);
    let effects = desk.tell(group(1, 2, Strategy::StrictSpread));
    assert!(matches!(effects[..], [Effect::Infeasible { request: Request::Group(GroupId(1)), .. }]));
    assert!(desk.tell(group(2, 1, Strategy::StrictSpread)).contains(&Effect::GroupReady { group: GroupId(2) }));
}

#[test]
fn a_dead_zygote_is_replaced_and_its_workers_stay() {
    let mut desk = Desk::new(1);
    let (_, worker) = runs(&desk.submit(1, one_cpu()))[0];
    let effects = desk.tell(Event::ZygoteDied { env: ENV });
    assert!(effects.contains(&Effect::StartZygote { env: ENV }));
    assert!(desk.finish(1, worker).contains(&Effect::TaskEnded { task: TaskId(1), end: TaskEnd::Finished }));
}

#[test]
fn an_environment_that_cannot_start_is_an_error_of_what_waits_for_it() {
    let mut node = Node::new(Config { prestart: 0, ..Config::default() }, Resources::cpus(Amount::ONE)).unwrap();
    let mut effects = Vec::new();
    node.step(Time(0), Event::DriverJoined { driver: DriverId(0), env: ENV }, &mut effects);
    node.step(Time(0), Event::Submit(spec(1, one_cpu())), &mut effects);
    assert!(effects.contains(&Effect::StartZygote { env: ENV }));
    node.step(Time(0), Event::ZygoteFailed { env: ENV }, &mut effects);
    let refusal = Refusal::ZygoteDoesNotStart { env: ENV, deaths: 0 };
    assert!(effects.contains(&Effect::TaskEnded { task: TaskId(1), end: TaskEnd::Refused(refusal) }));
    node.check();
}

#[test]
fn a_worker_ends_after_as_many_calls_as_its_class_allows() {
    let mut desk = Desk::new(1);
    let once = ClassSpec { calls_max: 1, ..one_cpu() };
    let (_, worker) = runs(&desk.submit(1, once))[0];
    let kill = Effect::KillWorker { worker, reason: KillReason::CallsDone };
    assert!(desk.finish(1, worker).contains(&kill));
}

/// Plays two drivers of one class for a second, each lease and task a hundred microseconds a call,
/// and counts the calls of each.
fn share(cpus: u32, is_first_direct: bool, is_second_direct: bool) -> [u64; 2] {
    let mut desk = Desk::new(cpus);
    desk.tell(Event::DriverJoined { driver: DriverId(1), env: ENV });
    let mut calls = [0, 0];
    let mut effects = Vec::new();
    for (at, is_direct) in [is_first_direct, is_second_direct].into_iter().enumerate() {
        let job = JobId(at as u32 + 1);
        match is_direct {
            true => effects.extend(desk.tell(lease(at as u64, job, Caller::Driver, 4))),
            false => {
                for task in 0..40_000 {
                    let task = TaskId(at as u64 * 1_000_000 + task);
                    let spec = TaskSpec { task, job, ..spec(0, one_cpu()) };
                    desk.node.step(Time(desk.now), Event::Submit(spec), &mut effects);
                }
            }
        }
    }
    let mut leases: Vec<(u64, WorkerId, bool)> = Vec::new();
    let mut running: Vec<(u64, WorkerId)> = Vec::new();
    for _ in 0..10_000 {
        // Whatever starts, starts at once; whoever was asked to let go does.
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in std::mem::take(&mut effects) {
                let event = match effect {
                    Effect::StartZygote { env } => Event::ZygoteStarted { env },
                    Effect::StartWorker { worker, .. } => Event::WorkerStarted { worker },
                    Effect::RunTask { task, worker, .. } => {
                        running.push((task.0, worker));
                        continue;
                    }
                    Effect::Grant { worker, queue, .. } => {
                        leases.push((queue.0, worker, false));
                        continue;
                    }
                    Effect::Withdraw { worker, queue } => {
                        leases.retain(|(_, leased, _)| *leased != worker);
                        Event::LeaseReturned { worker, queue, calls: 0, backlog: 100 }
                    }
                    _ => continue,
                };
                desk.node.step(Time(desk.now), event, &mut next);
            }
            effects = next;
        }
        desk.now += 100;
        leases.iter().for_each(|(queue, _, _)| calls[*queue as usize] += 1);
        for (task, worker) in std::mem::take(&mut running) {
            calls[(task / 1_000_000) as usize] += 1;
            let finished = Event::TaskFinished { task: TaskId(task), worker };
            desk.node.step(Time(desk.now), finished, &mut effects);
        }
        desk.node.step(Time(desk.now), Event::Tick, &mut effects);
    }
    calls
}

#[test]
fn two_drivers_of_one_class_get_two_fifths_each_whichever_way_they_call() {
    for cpus in [1, 2, 3] {
        for (first, second) in [(true, true), (false, false), (true, false), (false, true)] {
            let [one, other] = share(cpus, first, second);
            let least = one.min(other) as f64 / (one + other) as f64;
            assert!(least >= 0.4, "{cpus} CPUs, direct {first} {second}: {one} and {other} calls");
        }
    }
}

#[test]
fn a_wide_request_is_not_overtaken_for_ever() {
    let mut desk = Desk::new(2);
    let mut running = [runs(&desk.submit(1, one_cpu()))[0], runs(&desk.submit(2, one_cpu()))[0]];
    desk.submit(3, class(Resources::cpus(Amount::whole(2))));
    for round in 0..10_000 {
        let next = 4 + round as u64;
        desk.now += 1_000;
        let (task, worker) = running[round % 2];
        desk.submit(next, ClassSpec { function_group: FunctionGroup(2), ..one_cpu() });
        let begun = runs(&desk.finish(task, worker));
        if begun.iter().any(|(task, _)| *task == 3) {
            return;
        }
        match begun.first() {
            Some(first) => running[round % 2] = *first,
            None => running[round % 2] = running[(round + 1) % 2],
        }
    }
    panic!("it never ran");
}
