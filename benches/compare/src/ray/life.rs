//! Lives of sessions: import, `init`, the first task, `shutdown`, each life a fresh interpreter.
//!
//! The one thing to know: a life gives all four figures, so a round is lived once, by the first of the
//! four works that asks for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;

use super::program::Program;
use super::side::Side;
use super::work::Part;
use crate::error::BenchError;
use crate::python::script_path;
use crate::run::{Bench, Boxed};

/// Lives of a round of ours; Ray lives once, and a hundred times longer.
const OUR_LIVES: usize = 5;
/// No life is longer.
const LIMIT_SECONDS: u64 = 60;

/// Nanoseconds.
#[derive(Clone, Copy, Deserialize)]
struct Life {
    import: f64,
    init: f64,
    #[serde(rename = "first task")]
    first_task: f64,
    shutdown: f64,
}

impl Life {
    fn part(&self, part: Part) -> f64 {
        match part {
            Part::Import => self.import,
            Part::Init => self.init,
            Part::FirstTask => self.first_task,
            Part::Shutdown => self.shutdown,
        }
    }
}

/// The lives of one round.
type Lives = Rc<[Life]>;

thread_local! {
    static LIVED: RefCell<HashMap<(&'static str, usize), Lives>> = RefCell::default();
}

/// One part of the lives of a round.
pub(super) fn contender(part: Part, side: Side, bench: &Bench) -> Result<Boxed, BenchError> {
    let interpreter = side.interpreter(bench)?;
    let mut round = 0;
    Ok(Box::new(move || {
        let arguments = [script_path("life.py").into_os_string(), side.module().into()];
        let program = Program { interpreter: interpreter.clone(), arguments: arguments.into(), environment: vec![] };
        let lives = lives_of_round(round, side, &program)?;
        round += 1;
        Ok(lives.iter().map(|life| life.part(part)).collect())
    }))
}

/// The lives of this round, if another work has asked for them; else new ones.
fn lives_of_round(round: usize, side: Side, program: &Program) -> Result<Lives, BenchError> {
    let key = (side.module(), round);
    if let Some(known) = LIVED.with_borrow(|lived| lived.get(&key).cloned()) {
        return Ok(known);
    }
    let count = if side == Side::Ours { OUR_LIVES } else { 1 };
    let lives: Lives = (0..count).map(|_| live(side, program)).collect::<Result<_, _>>()?;
    LIVED.with_borrow_mut(|lived| lived.insert(key, Rc::clone(&lives)));
    Ok(lives)
}

fn live(side: Side, program: &Program) -> Result<Life, BenchError> {
    let said = program.run(side.module(), LIMIT_SECONDS)?;
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|_| BenchError::Answer { peer: side.module(), answer: line.to_owned() })
}
