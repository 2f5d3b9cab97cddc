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
    assert_eq!(ray.get(&thread::remote(&ray).unwrap()).unwrap(), here);
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
    assert_eq!(ray.get(&elsewhere::hygienic::remote(&ray, 1, 2, 3, 4).unwrap()).unwrap(), 10);
    let neat = elsewhere::Neat::remote(&ray, 1).unwrap();
    assert_eq!(ray.get(&neat.sum(2, 3).unwrap()).unwrap(), 6);
}

#[test]
fn a_function_inside_a_function_can_be_remote() {
    #[derive(Value, serde::Serialize, serde::Deserialize)]
    struct Pair(u64, u64);

    #[remote]
    fn inner(Pair(left, right): Pair, mut sum: u64) -> u64 {
        #[remote]
        fn innermost(left: u64, right: u64) -> u64 {
            left + right
        }
        sum += innermost(left, right);
        sum
    }
    let ray = local();
    let inner = inner::remote(&ray, Pair(1, 2), 3).unwrap();
    assert_eq!(ray.get(&inner).unwrap(), 6);
}

/// Names that the attribute uses itself, and one that is a keyword.
mod names {
    use raylet_client::prelude::*;

    #[remote]
    fn run(run: u64) -> u64 {
        run + 1
    }

    #[remote]
    fn options(ray: &Raylet, options: u64) -> Result<u64> {
        let run = run::remote(ray, options)?;
        Ok(ray.get(&run)?)
    }

    #[remote]
    async fn remote(r#type: u64) -> u64 {
        r#type + 1
    }

    #[remote(num_returns = 2)]
    pub(super) fn r#match(ray: &Raylet, r#match: u64) -> Result<(u64, u64)> {
        let (options, remote) = (options::remote(ray, r#match)?, remote::remote(ray, r#match)?);
        Ok((ray.get(&options)?, ray.get(&remote)?))
    }
}

#[test]
fn a_function_may_be_named_as_its_parameters_and_locals() {
    let ray = local();
    let (left, right) = names::r#match::remote(&ray, 1).unwrap();
    assert_eq!((ray.get(&left).unwrap(), ray.get(&right).unwrap()), (2, 2));
    let increment = increment::remote(&ray, 1).unwrap();
    let increment = self::increment::remote(&ray, &increment).unwrap();
    let increment = increment::remote(&ray, &increment).unwrap();
    assert_eq!(ray.get(&increment).unwrap(), 4);
    let failing: ObjectRef<u64> = failing::options(Options::new().max_retries(0)).remote(&ray).unwrap();
    assert!(
        ray.get(&failing).unwrap_err().to_string().contains("remote::failing returned an error: as asked"),
        "{failing:?}"
    );
}

#[remote]
fn failing() -> Result<u64> {
    Err("as asked".into())
}

mod visible {
    pub(crate) mod within {
        use raylet_client::prelude::*;

        #[derive(Value, serde::Serialize, serde::Deserialize)]
        struct Private(u64);

        #[remote]
        fn secret(x: Private) -> Private {
            Private(x.0 + 1)
        }

        /// Has docs and attributes of its own.
        #[remote]
        #[must_use]
        #[inline(never)]
        pub(super) fn next(x: u64) -> u64 {
            secret(Private(x)).0
        }

        #[remote]
        pub(in crate::visible) fn third(ray: &Raylet, x: u64) -> Result<u64> {
            let secret = secret::remote(ray, Private(x))?;
            Ok(ray.get(&secret)?.0)
        }
    }

    pub(super) use second::after_next;

    mod second {
        use super::within::{next, third};
        use raylet_client::prelude::*;

        #[remote]
        pub(in super::super) fn after_next(ray: &Raylet, x: u64) -> Result<u64> {
            let next = next::remote(ray, next(x))?;
            let third = third::remote(ray, &next)?;
            Ok(ray.get(&third)?)
        }
    }
}

#[test]
fn a_task_is_visible_where_its_function_is() {
    use visible::after_next;
    let ray = local();
    assert_eq!(after_next(&ray, 1).unwrap(), 4);
    assert_eq!(ray.get(&after_next::remote(&ray, 1).unwrap()).unwrap(), 4);
}

#[test]
fn a_remote_function_is_still_a_function() {
    let pointer: fn(u64) -> u64 = increment;
    assert_eq!(pointer(1), 2);
    assert_eq!([1, 2].map(increment), [2, 3]);
}

#[test]
fn two_raylets_of_one_process_are_apart() {
    let (one, two) = (local(), local());
    let object = one.put(5u64).unwrap();
    let foreign = increment::remote(&two, &object);
    assert!(matches!(foreign, Err(SubmitError::ForeignReference { .. })), "{foreign:?}");
    let foreign = count_objects::remote(&two, vec![object]);
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
