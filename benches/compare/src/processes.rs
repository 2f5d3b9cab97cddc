//! What the kernel says about other processes: who started whom, their memory, their time.
//!
//! The one thing to know: memory is counted without what is shared on purpose. Pages of segments are
//! counted once, by the blocks of the files behind them, whoever maps them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::error::BenchError;

/// Bytes of a block as `stat` counts them.
const BLOCK_BYTES: u64 = 512;

/// The processes that this one started and that live.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let ids = listed.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>());
    ids.collect()
}

/// A process and all that come from it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(member) = family.get(next).copied() {
        family.extend(children(member));
        next += 1;
    }
    family
}

/// The ids of all threads of a process.
pub fn threads(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect()
}

/// Proportional bytes of what is private or of files; shared memory is left out.
pub fn pss_bytes_without_shared(pid: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/smaps_rollup");
    Ok(field_bytes(&path, "Pss_Anon:")? + field_bytes(&path, "Pss_File:")?)
}

/// Bytes of memory that belong to this process alone and are in no file.
pub fn anonymous_bytes(pid: u32) -> Result<u64, BenchError> {
    field_bytes(&format!("/proc/{pid}/status"), "RssAnon:")
}

fn field_bytes(path: &str, name: &str) -> Result<u64, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::system("the memory of a process"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    let missing = BenchError::TooFew { what: "memory figures of a process", found: 0, wanted: 1 };
    value.map(|kib| kib << 10).ok_or(missing)
}

/// Nanoseconds that all threads of a process have run, ended ones included.
pub fn cpu_nanos(pid: u32) -> Result<f64, BenchError> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).map_err(BenchError::errno("a process' clock"))?;
    let time = clock.now().map_err(BenchError::errno("a process' clock"))?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// Bytes of all shared segments that these processes have open, each segment once.
pub fn segment_bytes(pids: &[u32]) -> u64 {
    let mut blocks = HashMap::new();
    for pid in pids {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for descriptor in open.map(|entry| entry.path()).filter(|path| is_segment(path)) {
            // A descriptor may be closed between the two looks; then it is nobody's segment.
            if let Ok(file) = fs::metadata(&descriptor) {
                blocks.insert((file.dev(), file.ino()), file.blocks());
            }
        }
    }
    blocks.values().sum::<u64>() * BLOCK_BYTES
}

fn is_segment(descriptor: &Path) -> bool {
    let target = fs::read_link(descriptor).unwrap_or_default();
    let target = target.to_string_lossy();
    target.starts_with("/memfd:") || target.starts_with("/dev/shm/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::SharedPages;

    #[test]
    fn this_process_has_memory_and_time() {
        let own = std::process::id();
        assert!(pss_bytes_without_shared(own).expect("a figure") > 0);
        assert!(anonymous_bytes(own).expect("a figure") > 0);
        assert!(cpu_nanos(own).expect("a time") > 0.0);
        assert!(!threads(own).is_empty() && family(own).contains(&own));
    }

    #[test]
    fn a_segment_counts_once_and_with_what_was_touched() {
        const BYTES: usize = 1 << 20;
        let own = std::process::id();
        let pages = SharedPages::warm(BYTES).expect("pages");
        let once = segment_bytes(&[own]);
        assert!(once >= BYTES as u64, "{once}");
        drop(pages);
    }
}
