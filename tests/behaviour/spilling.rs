//! To disk and back: more than memory holds, and disks that fail.

use crate::common::{KIB, MIB, check_nothing_is_left, fill, filled, small_config};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use store::spill_file::SpillError;
use store::{Config, CreateError, CreateOptions, GetError, Keeping, ObjectRef, ObjectState, RemakeError, Store};
use tempfile::TempDir;
use tests::Unboxed;
use tests::alone;
use tests::process::Child;

/// A store that spills into a directory of its own, in the caller's thread.
fn spilling(capacity_bytes: u64) -> (Store, TempDir) {
    let files = tempfile::tempdir().expect("a test has a directory for temporary files");
    (spilling_to(capacity_bytes, files.path(), Keeping::Inline), files)
}

fn spilling_to(capacity_bytes: u64, directory: &Path, keeping: Keeping) -> Store {
    let create_timeout = match keeping {
        Keeping::Inline => std::time::Duration::ZERO,
        _ => crate::common::PATIENCE,
    };
    let spill_directory = Some(directory.to_path_buf());
    Store::in_process(Config { spill_directory, keeping, create_timeout, ..small_config(capacity_bytes) })
        .expect("a small store can be made")
}

fn entries_of(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it is readable").path())
        .collect()
}

/// The files of the one store that spills below the directory.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let [of_store] = &entries_of(directory)[..] else { panic!("one store spills here") };
    entries_of(of_store)
}

/// The one spill file there is.
fn only_file(directory: &Path) -> PathBuf {
    let mut files = files_in(directory);
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn check(store: &Store, seed: u64, object: &ObjectRef) {
    let view = store.view(object).unwrap_or_else(|error| panic!("object {seed}: {error}"));
    assert!(*view == *filled(seed, object.size()), "object {seed} holds other bytes");
}

/// Puts, and looks again at all of, eight times what fits.
fn overfill(keeping: Keeping, capacity: u64, each: u64) {
    let files = tempfile::tempdir().expect("a test has a directory for temporary files");
    let store = spilling_to(capacity, files.path(), keeping);
    let count = 8 * capacity / each;
    let put = |seed| {
        let mut writer = store.create(each, &CreateOptions::default()).expect("others go to disk");
        fill(seed, &mut writer);
        writer.seal()
    };
    let objects: Vec<ObjectRef> = (0..count).map(put).collect();
    assert!(objects.iter().map(ObjectRef::size).sum::<u64>() > 8 * capacity - each);
    let written = files_in(files.path());
    assert!(written.len() as u64 >= count - capacity / each, "{} files for {count} objects", written.len());
    for file in &written {
        let mode = fs::metadata(file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    assert!(store.list().iter().any(|info| info.state == ObjectState::OnDisk));
    (0..count).for_each(|seed| check(&store, seed, &objects[seed as usize]));
    assert!(store.usage().restored_objects >= count - capacity / each);
    drop(objects);
    assert!(files_in(files.path()).is_empty(), "files are left");
    check_nothing_is_left(&store);
}

#[test]
fn a_store_holds_eight_times_its_memory_and_gives_each_byte_back() {
    overfill(Keeping::Threads, 256 * MIB, 4 * MIB);
}

#[test]
fn small_objects_go_to_disk_too() {
    overfill(Keeping::Inline, 4 * MIB, 10 * KIB);
}

#[test]
fn an_object_that_is_looked_at_stays_in_memory() {
    let (store, files) = spilling(4 * MIB);
    let object = store.put(&filled(1, MIB)).expect("there is room");
    let view = store.view(&object).expect("it is sealed");
    assert!(!store.spill_now(&object).expect("nothing is written"), "it is pinned");
    drop(view);
    assert!(store.spill_now(&object).expect("the disk is fine"));
    assert_eq!(store.list()[0].state, ObjectState::OnDisk);
    assert_eq!(store.usage().used_bytes, 0);
    assert!(object.is_ready() && store.contains(&object.id()));
    check(&store, 1, &object);
    drop(object);
    assert!(files_in(files.path()).is_empty());
    check_nothing_is_left(&store);
}

#[test]
fn a_promise_is_as_young_as_its_value() {
    let (store, _files) = spilling(4 * MIB);
    let promise = store.promise_by_handle(None).expect("there is room");
    let never = u32::MAX;
    store.set_used_ms(&promise, never);
    drop(store.put_for(promise.handle(), &filled(1, MIB), &CreateOptions::default()).expect("there is room"));
    assert_ne!(store.used_ms(&promise), never, "it moves to disk by its value's age");
}

/// Damages the file of the one object that is on disk, and says what a get of it says then.
fn after_damage(damage: impl FnOnce(&Path)) -> SpillError {
    let (store, files) = spilling(4 * MIB);
    let lost = store.put(&filled(1, MIB + 5)).expect("there is room");
    assert!(store.spill_now(&lost).expect("the disk is fine"));
    damage(&only_file(files.path()));
    let other = store.put(&filled(2, MIB)).expect("there is room");
    let used = store.usage().used_bytes;
    let error = match store.get(&lost).unboxed().err() {
        Some(GetError::Restore { id, source }) if id == lost.id() => source,
        error => panic!("no such error: {error:?}"),
    };
    assert!(store.get(&lost).is_err(), "it is not restored by asking again");
    assert_eq!(store.usage().used_bytes, used, "a failed restore keeps memory");
    check(&store, 2, &other);
    assert!(store.spill_now(&other).expect("the disk is fine"));
    check(&store, 2, &other);
    drop((lost, other));
    assert!(files_in(files.path()).is_empty(), "files are left");
    check_nothing_is_left(&store);
    error
}

#[test]
fn a_lost_value_comes_back_from_a_twin_and_from_nothing_else() {
    let (store, files) = spilling(8 * MIB);
    for damage in [|file: &Path| fs::remove_file(file), |file: &Path| open(file).write_all_at(b"\xFF\x00", 500_000)] {
        let lost = store.put(&filled(1, MIB)).expect("there is room");
        let twin = store.put(&filled(1, MIB)).expect("there is room");
        assert!(store.spill_now(&lost).expect("the disk is fine"));
        damage(&only_file(files.path())).expect("the file is ours");
        let shorter = store.put(&filled(1, MIB - 1)).expect("there is room");
        let lists = CreateOptions { references: std::slice::from_ref(&twin), ..CreateOptions::default() };
        let lists = store.put_with(&filled(1, MIB), &lists).expect("there is room");
        for other in [&shorter, &lists] {
            let refused = store.restore_from(&lost, &store.get(other).expect("it is sealed"));
            assert!(matches!(refused.map_err(|error| *error), Err(RemakeError::Differs { .. })));
            assert!(store.get(&lost).is_err(), "it is lost as before");
        }
        let made = store.get(&twin).expect("it is sealed");
        store.restore_from(&lost, &made).expect("the twin is right");
        check(&store, 1, &lost);
        store.restore_from(&lost, &made).expect("what is there stays");
        assert!(store.spill_now(&lost).expect("the disk is fine"));
        check(&store, 1, &lost);
        drop((lost, made, twin, shorter, lists));
        assert!(files_in(files.path()).is_empty(), "files are left");
        check_nothing_is_left(&store);
    }
}

fn open(file: &Path) -> fs::File {
    fs::OpenOptions::new().write(true).open(file).expect("the file is ours")
}

#[test]
fn a_damaged_spill_file_is_a_typed_error_and_costs_nothing_else() {
    let flipped = after_damage(|file| open(file).write_all_at(b"\xFF\x00\xFF", 500_000).expect("the file is ours"));
    assert!(matches!(flipped, SpillError::Corrupt { .. }), "{flipped}");
    let header = after_damage(|file| open(file).write_all_at(&[9], 20).expect("the file is ours"));
    assert!(matches!(header, SpillError::CorruptHeader { .. }), "{header}");
    let foreign = after_damage(|file| open(file).write_all_at(b"something", 0).expect("the file is ours"));
    assert!(matches!(foreign, SpillError::NotASpillFile { .. }), "{foreign}");
    for bytes in [0, 63, 64, 70_000, MIB + 4] {
        let short = after_damage(|file| open(file).set_len(bytes).expect("the file is ours"));
        let is_typed = matches!(short, SpillError::Truncated { .. } | SpillError::NotASpillFile { .. });
        assert!(is_typed, "cut to {bytes} bytes: {short}");
    }
    let missing = after_damage(|file| fs::remove_file(file).expect("the file is ours"));
    assert!(matches!(missing, SpillError::FileMissing { .. }), "{missing}");
}

#[test]
fn the_file_of_another_object_is_not_taken_for_ones_own() {
    let (store, files) = spilling(4 * MIB);
    let other = store.put(&filled(2, MIB)).expect("there is room");
    assert!(store.spill_now(&other).expect("the disk is fine"));
    let others = fs::read(only_file(files.path())).expect("the file is ours");
    drop(other);
    let object = store.put(&filled(1, MIB)).expect("there is room");
    assert!(store.spill_now(&object).expect("the disk is fine"));
    fs::write(only_file(files.path()), others).expect("the file is ours");
    let error = store.get(&object).unboxed().err();
    assert!(matches!(error, Some(GetError::Restore { source: SpillError::WrongObject { .. }, .. })), "{error:?}");
}

#[test]
fn a_spill_directory_that_went_away_loses_nothing_that_is_in_memory() {
    let (store, files) = spilling(4 * MIB);
    let lost = store.put(&filled(1, MIB)).expect("there is room");
    assert!(store.spill_now(&lost).expect("the disk is fine"));
    let kept = store.put(&filled(2, 2 * MIB)).expect("there is room");
    fs::remove_dir_all(files.path()).expect("the directory is ours");
    let spilled = store.spill_now(&kept);
    assert!(matches!(spilled, Err(SpillError::DirectoryMissing { .. })), "{spilled:?}");
    let full = store.put(&filled(3, 3 * MIB)).unboxed().err();
    assert!(matches!(full, Some(CreateError::OutOfMemory { .. })), "{full:?}");
    check(&store, 2, &kept);
    let error = store.get(&lost).unboxed().err();
    let is_missing =
        |source: &SpillError| matches!(source, SpillError::FileMissing { .. } | SpillError::DirectoryMissing { .. });
    assert!(matches!(&error, Some(GetError::Restore { source, .. }) if is_missing(source)), "{error:?}");
    drop((lost, kept));
    check_nothing_is_left(&store);
}

#[test]
fn a_spill_directory_that_cannot_be_made_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a test may make a file");
    let config = Config { spill_directory: Some(file.path().join("below")), ..small_config(4 * MIB) };
    let error = Store::in_process(config).err();
    assert!(
        matches!(&error, Some(store::OpenError::SpillDirectory { path, .. }) if path.starts_with(file.path())),
        "{error:?}"
    );
}

/// Mounts a file system of `bytes` bytes at `directory`, for this process alone; says why it cannot.
fn mount_tiny(directory: &Path, bytes: u64) -> Result<(), String> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let why = |what: &'static str| move |error: nix::errno::Errno| format!("{what}: {error}");
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(why("no namespace"))?;
        for (file, text) in
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
        {
            fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("{file}: {error}"))?;
        }
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(why("no private mounts"))?;
    let size = format!("size={bytes}");
    mount(Some("tiny"), directory, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).map_err(why("no tmpfs"))
}

fn on_a_full_disk(directory: &Path) {
    let store = spilling_to(4 * MIB, directory, Keeping::Inline);
    let first = store.put(&filled(1, MIB)).expect("there is room");
    let second = store.put(&filled(2, MIB)).expect("there is room");
    let spilled = store.spill_now(&first);
    assert!(matches!(spilled, Err(SpillError::NoSpace { needed_bytes, .. }) if needed_bytes > MIB), "{spilled:?}");
    assert!(files_in(directory).is_empty(), "a file that could not be finished is left");
    let full = store.put(&filled(3, 3 * MIB)).unboxed().err();
    assert!(matches!(full, Some(CreateError::OutOfMemory { .. })), "{full:?}");
    check(&store, 1, &first);
    check(&store, 2, &second);
    let small = store.put(&filled(4, 100 * KIB)).expect("there is room");
    assert!(store.spill_now(&small).expect("so much fits"));
    check(&store, 4, &small);
    drop((first, second, small));
    assert!(files_in(directory).is_empty(), "files are left");
    check_nothing_is_left(&store);
}

alone!(a_full_disk_is_a_typed_error_and_loses_nothing {
    let directory = tempfile::tempdir().expect("a test has a directory for temporary files");
    Child::fork(|| {
        match mount_tiny(directory.path(), 512 * KIB) {
            Ok(()) => on_a_full_disk(directory.path()),
            Err(why) => eprintln!("skipped: a full disk, because there is {why}"),
        }
        0
    }).succeed();
});
