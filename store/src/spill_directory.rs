//! The directory of one store's spill files, and what dead stores left beside it.
//!
//! The one thing to know: whoever uses the directory holds a shared lock of it, which the kernel
//! drops with the process. So a directory that can be locked exclusively is a dead store's, and the
//! next store made in the same place removes it. Two stores never share one.

use crate::error::OpenError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "store-";

/// An open directory for one store's files; the files are removed by [`SpillDirectory::remove`].
pub(crate) struct SpillDirectory {
    path: PathBuf,
    /// None where another process removed the directory meanwhile: spilling then says so.
    _lock: Option<Flock<File>>,
}

impl SpillDirectory {
    /// Makes the directory of the store with this seed, 0700, after sweeping dead stores' ones.
    pub(crate) fn create(base: &Path, seed: u64) -> Result<SpillDirectory, OpenError> {
        let failed = |source| OpenError::SpillDirectory { path: base.to_owned(), source };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(base).map_err(failed)?;
        sweep_dead(base).map_err(failed)?;
        builder.create(path_of(base, seed)).map_err(failed)?;
        Ok(SpillDirectory::join(base, seed))
    }

    /// The directory that the maker of the store made.
    pub(crate) fn join(base: &Path, seed: u64) -> SpillDirectory {
        let path = path_of(base, seed);
        let lock = File::open(&path).ok().and_then(|file| Flock::lock(file, FlockArg::LockSharedNonblock).ok());
        SpillDirectory { path, _lock: lock }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory with all it holds; for the last process of the store.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "a spill directory could not be removed");
        }
    }
}

fn path_of(base: &Path, seed: u64) -> PathBuf {
    base.join(format!("{PREFIX}{seed:016x}"))
}

/// Removes the directories whose every user has ended.
fn sweep_dead(base: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        let Some(file) = File::open(&path).ok().filter(|_| is_ours) else { continue };
        if let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // It may be gone by now: another store sweeps the same place.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_sweeps_what_the_dead_left_and_leaves_the_living_alone() {
        let base = std::env::temp_dir().join(format!("raylet-spill-{}", std::process::id()));
        let living = SpillDirectory::create(&base, 1).expect("a fresh directory can be made");
        fs::create_dir(base.join("store-00000000000000ff")).expect("the base is there");
        fs::write(base.join("store-00000000000000ff/left"), b"bytes").expect("so is the directory");
        let next = SpillDirectory::create(&base, 2).expect("a second store finds room beside the first");
        assert!(living.path().is_dir() && next.path().is_dir());
        assert!(!base.join("store-00000000000000ff").exists(), "a dead store's directory was left");
        living.remove();
        next.remove();
        fs::remove_dir(&base).expect("nothing else is in it");
    }
}
