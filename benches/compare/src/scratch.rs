//! Directories of a run, and what killed runs left.
//!
//! The one thing to know: a name carries the harness's process id, so that the next run can tell the
//! leavings of a dead one from the files of one that is still at work.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::BenchError;

const PREFIX: &str = "bench-compare-";
const SHARED_MEMORY: &str = "/dev/shm";

/// A directory in memory that is removed with the value.
pub fn in_shared_memory() -> Result<TempDir, BenchError> {
    fresh(Path::new(SHARED_MEMORY))
}

/// A directory for small files that is removed with the value.
pub fn on_disk() -> Result<TempDir, BenchError> {
    fresh(&std::env::temp_dir())
}

fn fresh(parent: &Path) -> Result<TempDir, BenchError> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    TempDir::with_prefix_in(prefix, parent).map_err(BenchError::system("a directory of this run"))
}

/// Removes whatever in shared memory begins with this name. What is still mapped loses only its name.
pub fn remove_shared(name: &str) {
    remove(Path::new(SHARED_MEMORY), |entry| entry.starts_with(name));
}

/// Removes what runs left that were killed.
pub fn sweep() {
    for parent in [PathBuf::from(SHARED_MEMORY), std::env::temp_dir()] {
        remove(&parent, |entry| owner(entry).is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()));
    }
}

/// The process whose run made an entry of this name.
fn owner(entry: &str) -> Option<u32> {
    entry.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn remove(parent: &Path, wanted: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(&wanted) {
            continue;
        }
        // Somebody else's entry of such a name stays: removing it fails and nothing depends on it.
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_run() {
        let directory = on_disk().expect("a directory");
        let name = directory.path().file_name().and_then(|name| name.to_str());
        assert_eq!(name.and_then(owner), Some(std::process::id()));
        assert_eq!(owner("bench-compare-x-1"), None);
    }

    #[test]
    fn a_sweep_leaves_living_runs_alone() {
        let directory = on_disk().expect("a directory");
        sweep();
        assert!(directory.path().exists());
    }
}
