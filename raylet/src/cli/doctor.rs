//! `raylet doctor`: what would make a raylet slow or fail on this machine.
//!
//! The one thing to know: each check is a finding with a grade and, where something can be done, the
//! advice. This file must change nothing but sweep the sessions of dead raylets.

use super::{CliError, Format, bytes, print, print_json};
use crate::door::DOOR_BYTES;
use crate::machine;
use crate::schedule::SEGMENT_BYTES;
use crate::session;
use clap::Args;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use raylet_api::address;
use serde::Serialize;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Good,
    /// Works, slower or with less than could be.
    Weak,
    /// Will not work.
    Bad,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    grade: Grade,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

impl Check {
    /// Good where `good` holds, else `grade` with the advice.
    fn new(name: &'static str, finding: String, good: bool, grade: Grade, advice: &'static str) -> Check {
        match good {
            true => Check { name, grade: Grade::Good, finding, advice: None },
            false => Check { name, grade, finding, advice: Some(advice) },
        }
    }
}

pub(super) fn run(options: &Options) -> Result<(), CliError> {
    let checks = [
        kernel(),
        huge_pages(),
        locked_memory(),
        descriptors(),
        address_space(),
        file_size(),
        processes(),
        processors(),
        memory(),
        shared_memory(),
        mappings(),
        spill_directory(),
        base_directory(),
        sessions(),
        doors(),
    ];
    match options.format {
        Format::Json => print_json(&checks),
        Format::Table => print(&text(&checks)),
    }
    match checks.iter().filter(|check| check.grade == Grade::Bad).count() {
        0 => Ok(()),
        bad_count => Err(CliError::Unhealthy { bad_count, count: checks.len() }),
    }
}

fn text(checks: &[Check]) -> String {
    let mut out = String::new();
    for check in checks {
        let grade = match check.grade {
            Grade::Good => "good",
            Grade::Weak => "WEAK",
            Grade::Bad => "BAD",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{grade:<5} {:<17} {}", check.name, check.finding);
        if let Some(advice) = check.advice {
            let _ = writeln!(out, "{:<23} {advice}", "");
        }
    }
    out
}

fn kernel() -> Check {
    let release = machine::kernel_value("/proc/sys/kernel/osrelease");
    let good = machine::kernel_version().is_none_or(|version| version >= (5, 14));
    let finding = release.unwrap_or_else(|| "unknown: /proc is not mounted".to_owned());
    Check::new("kernel", finding, good, Grade::Bad, "Linux 5.14 or later is needed")
}

fn huge_pages() -> Check {
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let value = machine::kernel_value(path);
    let choice = value.as_deref().and_then(machine::bracketed);
    let good = choice.is_some_and(|choice| ["always", "within_size", "advise", "force"].contains(&choice));
    let finding = match choice {
        Some(choice) => format!("shared memory: {choice}"),
        None => "shared memory: the kernel does not say".to_owned(),
    };
    let advice = "2 MiB pages make first touches faster: echo advise > \
                  /sys/kernel/mm/transparent_hugepage/shmem_enabled";
    Check::new("huge pages", finding, good, Grade::Weak, advice)
}

fn limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(_, hard)| hard)
}

fn limit_text(limit: Option<u64>, show: impl Fn(u64) -> String) -> String {
    match limit {
        None => "unknown".to_owned(),
        Some(RLIM_INFINITY) => "unlimited".to_owned(),
        Some(limit) => show(limit),
    }
}

/// Nothing of ours is locked; the number explains tools that do lock what they map.
fn locked_memory() -> Check {
    let finding = limit_text(limit(Resource::RLIMIT_MEMLOCK), bytes::show);
    Check::new("locked memory", finding, true, Grade::Weak, "")
}

fn descriptors() -> Check {
    const NEEDED: u64 = 4096;
    let limit = limit(Resource::RLIMIT_NOFILE);
    let good = limit.is_none_or(|limit| limit >= NEEDED);
    let advice = "each client costs the raylet one: raise the hard limit (ulimit -Hn) to 4096";
    let finding = limit_text(limit, |limit| limit.to_string());
    Check::new("descriptors", finding, good, Grade::Weak, advice)
}

/// The limits that count for a raylet and a client as they are started: the soft ones.
fn soft_limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| soft)
}

/// The store, the segment of queues and their tables are mapped as a whole, and filled as they are used.
fn mapped_bytes() -> u64 {
    SEGMENT_BYTES + 2 * machine::default_capacity_bytes()
}

fn address_space() -> Check {
    let limit = soft_limit(Resource::RLIMIT_AS);
    let good = limit.is_none_or(|limit| limit >= 2 * mapped_bytes());
    let advice = "the store and its queues are mapped whole: ulimit -v unlimited";
    Check::new("address space", limit_text(limit, bytes::show), good, Grade::Bad, advice)
}

fn file_size() -> Check {
    let limit = soft_limit(Resource::RLIMIT_FSIZE);
    let good = limit.is_none_or(|limit| limit >= mapped_bytes());
    let advice = "segments are sparse files in memory, and as large: ulimit -f unlimited";
    Check::new("file size", limit_text(limit, bytes::show), good, Grade::Bad, advice)
}

fn processes() -> Check {
    const NEEDED: u64 = 512;
    let user = soft_limit(Resource::RLIMIT_NPROC);
    let group = machine::cgroup_process_count();
    let good = [user, group].into_iter().flatten().all(|limit| limit >= NEEDED);
    let show = |count: u64| count.to_string();
    let finding = format!(
        "{} for this user, {} for this control group",
        limit_text(user, show),
        group.map_or("no limit".to_owned(), show)
    );
    let advice = "each worker is one, and each of its threads: raise it to 512, or give --workers-max";
    Check::new("processes", finding, good, Grade::Weak, advice)
}

fn processors() -> Check {
    let usable = std::thread::available_parallelism().map_or(1, |count| count.get());
    let finding = match machine::cgroup_cpus() {
        Some(quota) => format!("{usable} for this process; its control group has the time of {quota:.1}"),
        None => format!("{usable} for this process, no quota"),
    };
    let good = machine::cgroup_cpus().is_none_or(|quota| quota >= 1.0);
    let advice = "with less than one, a process is stopped in the middle of each period: give --num-cpus 1";
    Check::new("processors", finding, good, Grade::Weak, advice)
}

fn memory() -> Check {
    let total = machine::total_memory_bytes();
    let group = machine::cgroup_memory_bytes();
    let show = |value: Option<u64>, none: &str| value.map_or(none.to_owned(), bytes::show);
    let store = bytes::show(machine::default_capacity_bytes());
    let finding = format!(
        "{} in the machine, {} for this control group; a store takes {store} by default",
        show(total, "unknown"),
        show(group, "no limit"),
    );
    let smallest = [total, group].into_iter().flatten().min();
    let good = smallest.is_none_or(|smallest| smallest >= 256 << 20);
    Check::new("memory", finding, good, Grade::Weak, "shared memory counts: give --capacity")
}

fn shared_memory() -> Check {
    let Ok(stat) = statvfs("/dev/shm") else {
        let advice = "mount a tmpfs of 1 MiB or more on /dev/shm";
        return Check::new("/dev/shm", "not there".to_owned(), false, Grade::Bad, advice);
    };
    let free_bytes = stat.blocks_available() * stat.fragment_size();
    let finding = format!("{} free (a door needs {DOOR_BYTES} B)", bytes::show(free_bytes));
    let good = free_bytes >= DOOR_BYTES as u64;
    Check::new("/dev/shm", finding, good, Grade::Bad, "it is full: remove what is not needed")
}

fn mappings() -> Check {
    const NEEDED: u64 = 65_530;
    let value = machine::kernel_value("/proc/sys/vm/max_map_count");
    let count = value.as_deref().and_then(|text| text.parse::<u64>().ok());
    let good = count.is_none_or(|count| count >= NEEDED);
    let finding = count.map_or("unknown".to_owned(), |count| format!("{count} a process"));
    let advice = "each large object being written is one: sysctl vm.max_map_count=65530";
    Check::new("mappings", finding, good, Grade::Weak, advice)
}

fn spill_directory() -> Check {
    let base = address::base_directory();
    let parent = base.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let on_disk = [parent, Path::new("/var/tmp")].into_iter().find(|path| !session::is_memory(path));
    let finding = match on_disk {
        Some(path) => format!("on disk, in {}", path.display()),
        None => format!("{} and /var/tmp are memory", parent.display()),
    };
    let advice = "spilling would free nothing: give --spill-dir on a disk";
    Check::new("spill directory", finding, on_disk.is_some(), Grade::Weak, advice)
}

/// What `start` would refuse about the directory of all sessions.
fn base_directory() -> Check {
    let base = address::base_directory();
    let path = base.display();
    let own_uid = nix::unistd::geteuid().as_raw();
    let (finding, good) = match std::fs::symlink_metadata(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (format!("{path} will be made"), true),
        Err(error) => (format!("{path}: {error}"), false),
        Ok(data) if !data.is_dir() => (format!("{path} is no directory"), false),
        Ok(data) if data.uid() != own_uid => (format!("{path} belongs to uid {}, not {own_uid}", data.uid()), false),
        Ok(data) if data.mode() & 0o022 != 0 => {
            (format!("others may write into {path} (mode {:o})", data.mode() & 0o7777), false)
        }
        Ok(_) => (format!("{path} is this user's alone"), true),
    };
    Check::new("session directory", finding, good, Grade::Bad, "choose another by RAYLET_DIR, or chmod 700 it")
}

fn sessions() -> Check {
    let base = address::base_directory();
    match session::sweep_stale(&base) {
        Ok(swept) => {
            let names = match swept.is_empty() {
                true => "none stale".to_owned(),
                false => format!("swept what dead raylets left: {}", swept.join(", ")),
            };
            let finding = format!("{names}, in {}", base.display());
            Check::new("sessions", finding, true, Grade::Weak, "")
        }
        Err(error) => {
            let advice = "remove what is named, or choose another RAYLET_DIR";
            Check::new("sessions", error.to_string(), false, Grade::Weak, advice)
        }
    }
}

/// Doors in /dev/shm; those no session of this base names may belong to another base.
fn doors() -> Check {
    let prefix = session::own_prefix();
    let names = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let known = known_doors(&address::base_directory());
    let (own, strange): (Vec<_>, Vec<_>) =
        names.filter(|name| name.starts_with(&prefix)).partition(|name| known.contains(name));
    let finding = match strange.is_empty() {
        true => format!("{} in /dev/shm", own.len()),
        false => format!("{} in /dev/shm; of other session directories: {}", own.len(), strange.join(", ")),
    };
    Check::new("doors", finding, true, Grade::Weak, "")
}

fn known_doors(base: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter_map(|entry| session::record(&entry.path())).map(|record| record.door).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_only_where_something_is_wrong() {
        let check = |good| Check::new("name", "finding".into(), good, Grade::Bad, "advice");
        assert_eq!(text(&[check(true)]), "good  name              finding\n");
        assert!(text(&[check(false)]).ends_with("                        advice\n"));
        assert_eq!(check(false).grade, Grade::Bad);
    }

    #[test]
    fn every_check_ends_with_a_finding() {
        for check in [kernel(), huge_pages(), locked_memory(), descriptors(), memory()] {
            assert!(!check.finding.is_empty(), "{}", check.name);
        }
        for check in [address_space(), file_size(), processes(), processors(), base_directory()] {
            assert!(!check.finding.is_empty(), "{}", check.name);
        }
        for check in [shared_memory(), mappings(), spill_directory(), doors()] {
            assert!(!check.finding.is_empty(), "{}", check.name);
        }
    }
}
