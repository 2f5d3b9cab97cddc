//! Processes of this executable that measure themselves and say what they found on one line.
//!
//! The one thing to know: such a process is a driver that has just begun, with a raylet of its own.

use std::process::Stdio;
use std::time::Duration;

use nix::unistd::alarm;

use super::{footprint, start};
use crate::child::{end_with_parent, role_command};
use crate::error::BenchError;

/// A process that takes longer than this has hung, and is ended by the kernel.
const LIMIT: Duration = Duration::from_secs(120);

/// What a process in this role says; its first word is the role, then come numbers for it.
pub(super) fn first_line<const COUNT: usize>(role: &str) -> Result<[f64; COUNT], BenchError> {
    let mut command = role_command(&["driver", "--role", role])?;
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(BenchError::system("another process of ours"))?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let numbers: Vec<f64> = answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| BenchError::Answer { peer: "ours", answer })
}

/// The process in a role; it prints its numbers.
pub fn role(role: &str, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    alarm::set(LIMIT.as_secs() as u32);
    let (name, number) = role.split_once(' ').unwrap_or((role, ""));
    let numbers = match (name, number.parse()) {
        ("embedded-start", _) => start::embedded_role()?.to_vec(),
        ("queue-tasks", Ok(count)) => footprint::queue_role(count)?.to_vec(),
        _ => return Err(BenchError::UnknownRole { role: role.to_owned() }),
    };
    println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}
