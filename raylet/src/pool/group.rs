//! A dead worker's process group: killed, and seen empty.
//!
//! The one thing to know: a group may outlive its leader, and a zombie is still a member to `kill`.
//! So the cheap question "does anybody get this signal" comes first, and where the answer stays yes,
//! /proc says whether those are all zombies (the leader's parent, the zygote, may be stopped). This
//! file must not touch groups that are not a worker's.

use super::Exit;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::time::Duration;
use store_shm::ProcessId;
use store_shm::process::{Ended, Which, ended_child};

/// Attempts before /proc is asked; a group is empty at the first or second where nobody is stopped.
const CHEAP_ATTEMPT_COUNT: u32 = 3;
const DELAY_MS_MAX: u64 = 32;

/// Sends SIGKILL to a worker's whole group; `false` where there is nobody.
pub(crate) fn kill(leader: ProcessId) -> bool {
    let now = ProcessId::of(leader.pid);
    if now.is_some_and(|now| leader.start_ticks != 0 && now.start_ticks != leader.start_ticks) {
        // The number is somebody else's by now, which it becomes only after the group was empty.
        return false;
    }
    match killpg(pid(leader), Signal::SIGKILL) {
        Ok(()) => true,
        Err(Errno::ESRCH) => false,
        Err(error) => {
            // Somebody in it changed its user: it is out of our reach, and of the store's.
            tracing::warn!(%error, group = leader.pid, "a worker's process group could not be killed");
            false
        }
    }
}

/// Kills what is left of a dead worker's group and returns when nobody is; says how the worker ended
/// where this process came to be its parent.
pub(crate) async fn end(leader: ProcessId) -> Option<Exit> {
    let mut exit = None;
    for attempt in 0.. {
        let is_left = kill(leader);
        // Those whose parents died before them are ours to reap, if this process takes orphans.
        if let Some((_, ended)) = ended_child(Which::Pid(leader.pid), true) {
            exit = Some(exit_of(ended));
        }
        while ended_child(Which::Group(leader.pid), true).is_some() {}
        if !is_left || (attempt >= CHEAP_ATTEMPT_COUNT && has_only_zombies(leader.pid).await) {
            return exit;
        }
        let delay_ms = (1 << attempt.min(5)).min(DELAY_MS_MAX);
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    unreachable!("the attempts do not end")
}

pub(crate) fn exit_of(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Code(code),
        Ended::Signal(signal) => Exit::Signal(signal),
    }
}

fn pid(process: ProcessId) -> Pid {
    Pid::from_raw(process.pid.cast_signed())
}

async fn has_only_zombies(group: u32) -> bool {
    tokio::task::spawn_blocking(move || living_members(group) == 0).await.unwrap_or(false)
}

/// Members of a group that are no zombies.
fn living_members(group: u32) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 1 };
    let is_member = |entry: std::fs::DirEntry| {
        let is_process = entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        is_process && std::fs::read(entry.path().join("stat")).is_ok_and(|stat| is_living_member(&stat, group))
    };
    entries.flatten().map(is_member).filter(|&is| is).count()
}

/// `<pid> (<command>) <state> <parent> <group> ...`; the command may hold anything.
fn is_living_member(stat: &[u8], group: u32) -> bool {
    let Some(end) = stat.iter().rposition(|&byte| byte == b')') else { return false };
    let text = String::from_utf8_lossy(&stat[end + 1..]);
    let mut fields = text.split_ascii_whitespace();
    let (state, found) = (fields.next(), fields.nth(1).and_then(|field| field.parse().ok()));
    found == Some(group) && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_from_zombies_and_strangers() {
        let check = |stat: &str, is: bool| assert_eq!(is_living_member(stat.as_bytes(), 70), is, "{stat}");
        check("71 (a) S 70 70 70 0", true);
        check("71 (a) R) Z 1 70 (b) T 1 70 70 0", true);
        check("71 (a) Z 70 70 70 0", false);
        check("71 (a) S 70 71 70 0", false);
        check("71 (a", false);
        check("", false);
    }

    #[test]
    fn this_group_has_a_living_member() {
        let own = nix::unistd::getpgrp().as_raw().cast_unsigned();
        assert_ne!(living_members(own), 0);
    }
}
