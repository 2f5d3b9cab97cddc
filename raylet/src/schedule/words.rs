//! What people read when something is not done: the failures that stand in the place of results.
//!
//! The one thing to know: whoever reads one did not see what happened, so each says what, how often,
//! and what can be done. This file must not decide what fails.

use super::translate::show;
use raylet_api::failure::{Failure, TaskErrorKind};
use raylet_core::effect::{DeathCause, Refusal, TaskEnd};
use raylet_core::resources::Resources;

/// Why a call has no result. `name` is its function's, `how` how its last worker ended.
pub(crate) fn task_failure(name: &str, end: &TaskEnd, how: Option<&str>) -> Failure {
    let (kind, text) = match end {
        TaskEnd::Finished | TaskEnd::Failed => {
            let text = "its worker said that it was over, and left no result";
            (TaskErrorKind::Unknown, text.to_owned())
        }
        TaskEnd::Cancelled => (TaskErrorKind::Cancelled, "it was cancelled".to_owned()),
        TaskEnd::WorkerCrashed { attempts } => (TaskErrorKind::WorkerCrashed, crashed(*attempts, how)),
        TaskEnd::JobOver => (TaskErrorKind::CallerDied, "the driver that it belongs to is gone".to_owned()),
        TaskEnd::CallerGone => (TaskErrorKind::CallerDied, CALLER_GONE.to_owned()),
        TaskEnd::GroupRemoved { .. } => {
            (TaskErrorKind::Refused, "the placement group that it was to run in was removed".to_owned())
        }
        TaskEnd::Refused(refusal) => (TaskErrorKind::Refused, refused(refusal, how)),
        _ => (TaskErrorKind::Unknown, format!("{end:?}")),
    };
    Failure::new(kind, name, text)
}

const CALLER_GONE: &str = "whoever submitted it is gone, and it had not begun";

/// Of a call whose submitter died before it was under way.
pub(crate) fn caller_died(name: &str) -> Failure {
    Failure::new(TaskErrorKind::CallerDied, name, CALLER_GONE)
}

/// Of a call whose worker died, and that is not tried again.
pub(crate) fn worker_crashed(name: &str, attempts: u32, how: Option<&str>) -> Failure {
    Failure::new(TaskErrorKind::WorkerCrashed, name, crashed(attempts, how))
}

fn crashed(attempts: u32, how: Option<&str>) -> String {
    let how = how.map(|how| format!(" ({how})")).unwrap_or_default();
    let times = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    format!("the worker that ran it died{how}; it had {times}, and max_retries allows no more")
}

/// Of a call that was under way on an actor that comes back.
pub(crate) fn actor_unavailable(name: &str, how: Option<&str>) -> Failure {
    let how = how.map(|how| format!(" ({how})")).unwrap_or_default();
    let text = format!(
        "the actor's process died during the call{how}; it is started again, and max_task_retries allows no other attempt"
    );
    Failure::new(TaskErrorKind::ActorUnavailable, name, text)
}

/// Of each call of an actor that is dead for good. `why` is its constructor's own failure, if it had one.
pub(crate) fn actor_died(class: &str, cause: &DeathCause, why: Option<&Failure>, how: Option<&str>) -> Failure {
    if let (DeathCause::CreationFailed, Some(why)) = (cause, why) {
        let text = format!("its constructor failed: {}", why.message);
        let (backtrace, payload) = (why.backtrace.clone(), why.payload.clone());
        return Failure { backtrace, payload, ..Failure::new(TaskErrorKind::ActorDied, class, text) };
    }
    let text = match cause {
        DeathCause::WorkerDied { restarts: 0 } => {
            format!("its process died{}; max_restarts allows no restart", how.map(in_brackets).unwrap_or_default())
        }
        DeathCause::WorkerDied { restarts } => {
            let how = how.map(in_brackets).unwrap_or_default();
            format!("its process died{how} after {restarts} restarts; max_restarts allows no more")
        }
        DeathCause::CreationFailed => "its constructor failed".to_owned(),
        DeathCause::Killed => "it was killed".to_owned(),
        DeathCause::Exited => "it ended itself".to_owned(),
        DeathCause::HandlesGone => "nobody had a handle of it any more".to_owned(),
        DeathCause::JobOver => "the driver that it belongs to is gone".to_owned(),
        DeathCause::GroupRemoved { .. } => "the placement group that it ran in was removed".to_owned(),
        DeathCause::Refused(refusal) => refused(refusal, how),
        other => format!("{other:?}"),
    };
    Failure::new(TaskErrorKind::ActorDied, class, text)
}

fn in_brackets(how: &str) -> String {
    format!(" ({how})")
}

/// A refusal, and what is known of its cause.
pub(crate) fn refused(refusal: &Refusal, trouble: Option<&str>) -> String {
    let advice = match refusal {
        Refusal::WorkerCapReached { .. } => "; let tasks wait for fewer others, or start the raylet with more workers",
        Refusal::NoSuchBundle { .. } => "; create the placement group first",
        _ => "",
    };
    let trouble = match (refusal, trouble) {
        (Refusal::WorkersDoNotStart { .. } | Refusal::ZygoteDoesNotStart { .. }, Some(trouble)) => {
            format!(": {trouble}")
        }
        _ => String::new(),
    };
    format!("{refusal}{trouble}{advice}")
}

/// A request that waits until this machine grows.
pub(crate) fn infeasible(what: &str, wanted: &Resources, capacity: &Resources) -> String {
    let (wanted, capacity) = (show(wanted), show(capacity));
    format!("{what} asks for {wanted}, and there is {capacity} in all: it waits until it is cancelled or removed")
}

/// A request that waits for what others need not give back.
pub(crate) fn stuck(what: &str, wanted: &Resources, free: &Resources, capacity: &Resources) -> String {
    let (wanted, free, capacity) = (show(wanted), show(free), show(capacity));
    format!(
        "{what} asks for {wanted} and cannot be scheduled right now: {free} of {capacity} is free, and what is missing is \
         held by actors, placement groups or tasks that wait themselves; it waits until some of them end"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use raylet_core::ids::EnvId;

    #[test]
    fn a_crash_says_how_and_how_often() {
        let failure = task_failure("f", &TaskEnd::WorkerCrashed { attempts: 4 }, Some("signal 9"));
        assert_eq!((failure.kind, failure.function.as_str()), (TaskErrorKind::WorkerCrashed, "f"));
        assert!(failure.message.contains("(signal 9); it had 4 attempts"), "{}", failure.message);
    }

    #[test]
    fn a_constructor_that_failed_is_quoted() {
        let why = Failure::new(TaskErrorKind::Returned, "C::new", "no such disk");
        let failure = actor_died("C", &DeathCause::CreationFailed, Some(&why), None);
        assert_eq!(failure.message, "its constructor failed: no such disk");
        let refusal = Refusal::ZygoteDoesNotStart { env: EnvId(1), deaths: 0 };
        let text = refused(&refusal, Some("cannot start /x as a zygote"));
        assert!(text.ends_with("in a row: cannot start /x as a zygote"), "{text}");
    }
}
