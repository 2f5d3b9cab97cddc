//! Remote functions and actors on a real raylet: every program of `programs`, on both transports.
//!
//! The one thing to know: each program has a raylet of its own, started by its `init` as a child of
//! this process, whose workers are forked from this very executable. This file must not depend on what
//! else runs on the machine.

mod programs;

use raylet_client::prelude::*;

fn config(transport: Transport) -> Config {
    Config {
        address: Some("local".to_owned()),
        transport: Some(transport),
        capacity_bytes: 256 << 20,
        num_cpus: Some(2.0),
        ..Config::default()
    }
}

fn direct() -> Raylet {
    Raylet::init(config(Transport::Direct)).unwrap()
}

fn routed() -> Raylet {
    Raylet::init(config(Transport::Raylet)).unwrap()
}

#[test]
fn programs_of_tasks_run_on_leased_workers() {
    programs::run(programs::TASKS, direct);
}

#[test]
fn programs_of_tasks_run_through_the_raylet() {
    programs::run(programs::TASKS, routed);
}

#[test]
fn programs_of_actors_run_on_leased_workers() {
    programs::run(programs::ACTORS, direct);
}

#[test]
fn programs_of_actors_run_through_the_raylet() {
    programs::run(programs::ACTORS, routed);
}
