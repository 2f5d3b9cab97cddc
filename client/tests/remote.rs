//! Remote functions in local mode: every program of `programs`.
//!
//! The one thing to know: what only holds in local mode is here, the rest is in the table. This file
//! must not depend on how local mode works.

mod programs;

use raylet_client::prelude::*;

fn local() -> Raylet {
    Raylet::init(Config { mode: Mode::Local, capacity_bytes: 64 << 20, ..Config::default() }).unwrap()
}

#[test]
fn programs_of_tasks_run_in_local_mode() {
    programs::run(programs::TASKS, local);
}

#[remote]
fn thread() -> String {
    format!("{:?}", std::thread::current().id())
}

#[test]
fn local_mode_runs_in_the_calling_thread() {
    let ray = local();
    let here = format!("{:?}", std::thread::current().id());
    assert_eq!(ray.get(&thread.remote(&ray).unwrap()).unwrap(), here);
    assert!(Raylet::current().is_none(), "outside of tasks there is none");
}

mod elsewhere {
    //! Names that a user may have made before: what the attribute writes must not care.

    #![allow(dead_code, non_camel_case_types)]

    use raylet_client as renamed;

    struct Result;
    struct Option;
    struct Box;
    struct String;
    struct Vec;
    struct Raylet;
    struct Options;
    mod std {}
    mod core {}

    #[renamed::remote(crate = renamed, max_retries = 1)]
    pub(super) fn hygienic(ray: u64, arguments: u64, results: u64, value: u64) -> u64 {
        ray + arguments + results + value
    }

    pub(super) struct Neat(u64);

    #[renamed::remote(crate = renamed)]
    impl Neat {
        pub(super) fn new(ray: u64) -> Neat {
            Neat(ray)
        }

        pub(super) fn sum(&self, arguments: u64, state: u64) -> u64 {
            self.0 + arguments + state
        }
    }
}

#[test]
fn names_of_the_user_do_not_meet_those_of_the_attribute() {
    let ray = local();
    assert_eq!(ray.get(&elsewhere::hygienic.remote(&ray, 1, 2, 3, 4).unwrap()).unwrap(), 10);
    let neat = elsewhere::Neat::remote(&ray, 1).unwrap();
    assert_eq!(ray.get(&neat.sum(2, 3).unwrap()).unwrap(), 6);
}

#[test]
fn a_function_inside_a_function_can_be_remote() {
    #[remote]
    fn inner((left, right): (u64, u64), mut sum: u64) -> u64 {
        sum += left + right;
        sum
    }
    let ray = local();
    assert_eq!(ray.get(&inner.remote(&ray, (1, 2), 3).unwrap()).unwrap(), 6);
}

#[test]
fn two_raylets_of_one_process_are_apart() {
    let (one, two) = (local(), local());
    let object = one.put(5u64).unwrap();
    let foreign = increment.remote(&two, &object);
    assert!(matches!(foreign, Err(SubmitError::ForeignReference { .. })), "{foreign:?}");
    let foreign = count_objects.remote(&two, vec![object]);
    assert!(matches!(foreign, Err(SubmitError::Create(_))), "{foreign:?}");
}

#[remote]
fn increment(n: u64) -> u64 {
    n + 1
}

#[remote]
fn count_objects(objects: Vec<ObjectRef<u64>>) -> usize {
    objects.len()
}
