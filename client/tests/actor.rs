//! Actors in local mode: every program of `programs`, and what only holds there.
//!
//! The one thing to know: in local mode a call runs before it returns, so an actor that calls itself
//! is told so. This file must not depend on how local mode works.

mod programs;

use raylet_client::prelude::*;

fn local() -> Raylet {
    Raylet::init(Config { mode: Mode::Local, capacity_bytes: 64 << 20, ..Config::default() }).unwrap()
}

#[test]
fn programs_of_actors_run_in_local_mode() {
    programs::run(programs::ACTORS, local);
}

struct Narcissus;

#[remote]
impl Narcissus {
    fn new() -> Narcissus {
        Narcissus
    }

    fn look(&self, me: ActorHandle<Narcissus>) -> String {
        me.touch().unwrap_err().to_string()
    }

    fn touch(&self) {}

    fn end(&self, ray: &Raylet, me: ActorHandle<Narcissus>) -> u64 {
        ray.kill(&me);
        1
    }
}

#[test]
fn an_actor_that_calls_itself_is_told_so() {
    let ray = local();
    let narcissus = Narcissus::remote(&ray).unwrap();
    let said = ray.get(&narcissus.look(&narcissus).unwrap()).unwrap();
    assert!(said.contains("calls itself"), "{said}");
}

#[test]
fn an_actor_can_kill_itself() {
    let ray = local();
    let narcissus = Narcissus::remote(&ray).unwrap();
    assert_eq!(ray.get(&narcissus.end(&narcissus).unwrap()).unwrap(), 1);
    let after = ray.get(&narcissus.touch().unwrap()).unwrap_err();
    assert!(after.to_string().contains("killed"), "{after}");
}
