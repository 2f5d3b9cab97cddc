//! The tests of Lightning's defects once more, where /dev/shm has one mebibyte.
//!
//! The one thing to know: the binary starts itself again, and that process enters a mount namespace of
//! its own before the tests run, so the machine's /dev/shm stays as it is. Where the kernel forbids
//! that, the test says so and proves nothing.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use std::process::{Command, Stdio};
use tests::alone;

const SHM_BYTES: u64 = 1 << 20;

/// Mounts for this process and what it starts only.
fn shrink() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), Some("size=1m"))
}

alone!(one_mebibyte_of_dev_shm_is_enough {
    if let Err(error) = shrink() {
        eprintln!("skipped: the kernel gives no small /dev/shm here: {error}");
        return;
    }
    let stat = statvfs("/dev/shm").expect("it is mounted");
    assert_eq!(stat.blocks() as u64 * stat.fragment_size() as u64, SHM_BYTES, "/dev/shm is not small");
    let binary = std::env::current_exe().expect("a running program has a path");
    let status = Command::new(binary)
        .args(["lightning::", "--test-threads=2"])
        .stdout(Stdio::null())
        .status()
        .expect("the test binary starts again");
    assert!(status.success(), "the tests fail with a small /dev/shm: {status}");
    let left = std::fs::read_dir("/dev/shm").expect("it is mounted").count();
    assert_eq!(left, 0, "files are left in /dev/shm");
});
