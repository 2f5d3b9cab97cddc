//! Messages about work as seeds: one of each kind, with something in it where it can hold something.
//!
//! The one thing to know: kinds without a seed are reached only by an input whose kind was changed by
//! chance and whose body then fits. This file must not mutate anything.

use raylet_api::record::{ObjectKey, RECORD_WORDS};
use raylet_api::*;

const OBJECT: ObjectKey = ObjectKey { slot: 70_000, generation: 1 << 40 };
const WORDS: [u64; RECORD_WORDS] = [u64::MAX, 1 << 40, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

pub(crate) fn messages() -> Vec<Message> {
    let mut messages = calls();
    messages.extend(actors_and_groups());
    messages.extend(workers());
    messages
}

fn class() -> ClassWish {
    let demand = [("CPU".to_owned(), 10_000), ("tape".to_owned(), 1 << 33)].into();
    let placement = Some(BundleWish { group: OBJECT, bundle: Some(1) });
    ClassWish { group: 1 << 63, demand, calls_max: 5, placement }
}

fn calls() -> Vec<Message> {
    let argument = RecipeArgument { object: OBJECT, value: Some((4, vec![1, 200])) };
    vec![
        OpenQueue { request: 1, class: class() }.into(),
        OpenActorQueue { request: 2, anchor: OBJECT }.into(),
        QueueOpened { request: 2, queue: 3, offset: 1 << 20 }.into(),
        WantWorkers { queue: 3, wanted: 2, backlog: 70_000 }.into(),
        CloseQueue { queue: 3 }.into(),
        QueueEnded { queue: 3, error: vec![0x81, 0xa1, 0x61, 0xc0] }.into(),
        SubmitTask { class: class(), waits_for: vec![OBJECT; 2], words: WORDS }.into(),
        CancelTask { result: OBJECT, force: true, recursive: true, only_children: false }.into(),
        KeepRecipe { words: WORDS, spec: vec![0, 200], arguments: vec![argument, RecipeArgument::default()] }.into(),
        RemakeObject { lost: OBJECT, fresh: OBJECT }.into(),
        Blocked {}.into(),
        Woken {}.into(),
        Done { request: 9 }.into(),
        Refused { request: 9, code: RefusalCode::NameTaken, text: "taken".into() }.into(),
        NameFunctions { names: vec![(7, "f".into()), (u64::MAX, String::new())] }.into(),
    ]
}

fn actors_and_groups() -> Vec<Message> {
    let create = CreateActor {
        request: 4,
        anchor: OBJECT,
        class: class(),
        restarts_max: -1,
        name: Some("a".into()),
        waits_for: vec![OBJECT],
        words: WORDS,
        ..CreateActor::default()
    };
    let bundles = vec![class().demand; 2];
    vec![
        create.into(),
        ActorCreated { request: 4, anchor: OBJECT }.into(),
        ReleasedActor { anchor: OBJECT }.into(),
        KillActor { anchor: OBJECT, no_restart: true }.into(),
        FindActor { request: 5, name: "a".into(), namespace: "n".into() }.into(),
        ActorFound { request: 5, anchor: Some(OBJECT), death: Some(vec![1, 2]) }.into(),
        AskActor { request: 6, anchor: OBJECT }.into(),
        CreateGroup { request: 7, group: OBJECT, bundles, strategy: "PACK".into(), ..CreateGroup::default() }.into(),
        RemoveGroup { group: OBJECT }.into(),
        RunActor { anchor: OBJECT, words: WORDS, queues: vec![(1, 2); 2], ..RunActor::default() }.into(),
        ServeQueue { queue: 3, offset: 1 << 20 }.into(),
        DropQueue { queue: 3 }.into(),
        QueueDropped { queue: 3 }.into(),
        ActorReady {}.into(),
        ActorFailed { error: vec![0xc0] }.into(),
        EndWorker {}.into(),
        ActorExited {}.into(),
    ]
}

fn workers() -> Vec<Message> {
    let line = LogLine { name: "f".into(), pid: 300, is_error: true, text: "text".into() };
    vec![
        WorkerReady {}.into(),
        Grant { queue: 3, offset: 1 << 20, gpus: Some("0,1".into()), calls_max: 5 }.into(),
        Withdraw { queue: 3 }.into(),
        LeaseIdle { queue: 3 }.into(),
        LeaseBusy { queue: 3 }.into(),
        LeaseReturned { queue: 3, calls: 9, has_queued: true }.into(),
        RunTask { task: 1 << 40, attempt: 2, words: WORDS, gpus: None }.into(),
        TaskDone { task: 1 << 40, retry: true }.into(),
        InterruptTask { result: OBJECT, recursive: true }.into(),
        LogLines { lines: vec![line; 2], dropped_count: 1 }.into(),
        Notice { text: "a notice".into() }.into(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_kind_of_work_has_a_seed() {
        let mut kinds: Vec<u16> = super::messages().iter().map(raylet_api::Message::kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, (12..=54).collect::<Vec<u16>>());
    }
}
