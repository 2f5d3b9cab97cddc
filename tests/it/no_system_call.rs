//! The hot path asks nobody: put, get and release go on where the kernel answers no call.
//!
//! The one thing to know: a seccomp filter kills the child at any call but those by which it ends. It
//! must not warm up more than a client is warm after its first objects of a kind.

#![allow(unsafe_code)]

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::time::Duration;
use store::{Config, CreateOptions, Keeping, ObjectId, ObjectRef, Store};
use tests::alone;
use tests::process::Child;
use tests::world::id_of;

const PUTS: usize = 200;
const GETS: usize = 1000;
const CONTENT: [u8; 100] = [7; 100];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// What a child may still call: to say why it failed, and to end.
const ALLOWED: [libc::c_long; 4] = [libc::SYS_write, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn];

fn statement(code: u32, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: operand }
}

/// Skips `if_equal` or `otherwise` statements.
fn compare(with: u32, if_equal: u8, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: if_equal,
        jf: otherwise,
        k: with,
    }
}

/// The architecture lies at 4 of what a filter sees, the number of the call at 0.
fn filter() -> Vec<libc::sock_filter> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![statement(load, 4), compare(ARCHITECTURE, 0, ALLOWED.len() as u8 + 1), statement(load, 0)];
    for (at, number) in ALLOWED.iter().enumerate() {
        program.push(compare(*number as u32, (ALLOWED.len() - at) as u8, 0));
    }
    program.push(statement(answer, libc::SECCOMP_RET_KILL_PROCESS));
    program.push(statement(answer, libc::SECCOMP_RET_ALLOW));
    program
}

/// From here on this process dies of every other call.
fn ask_nobody_any_more() {
    let mut filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until both calls are over.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(installed, "the kernel takes no filter: {}", std::io::Error::last_os_error());
}

/// References that were made before the filter, so that nothing has to be allocated.
struct Room {
    by_id: Vec<ObjectRef>,
    by_handle: Vec<ObjectRef>,
}

impl Room {
    fn new() -> Room {
        Room { by_id: Vec::with_capacity(PUTS), by_handle: Vec::with_capacity(PUTS) }
    }

    fn put(&mut self, store: &Store, ids: &[ObjectId]) {
        for id in ids {
            let options = CreateOptions { id: Some(*id), timeout: Some(Duration::ZERO), ..CreateOptions::default() };
            self.by_id.push(store.put_with(&CONTENT, &options).expect("there is room"));
            let options = CreateOptions { id: None, by_handle_only: true, ..options };
            self.by_handle.push(store.put_with(&CONTENT, &options).expect("there is room"));
        }
    }

    fn get(&self, store: &Store, ids: &[ObjectId]) {
        for round in 0..GETS {
            let at = round % PUTS;
            assert!(*store.view(&self.by_handle[at]).expect("it is kept") == CONTENT);
            assert!(*store.view(&self.by_id[at]).expect("it is kept") == CONTENT);
            assert!(*store.view_by_id(&ids[at]).expect("it is kept") == CONTENT);
        }
    }

    fn let_go(&mut self) {
        self.by_id.clear();
        self.by_handle.clear();
    }
}

/// One round of everything, as a client does it all day.
fn work(store: &Store, room: &mut Room, ids: &[ObjectId]) {
    room.put(store, ids);
    room.get(store, ids);
    room.let_go();
}

fn store() -> Store {
    let config = Config { capacity_bytes: 8 << 20, max_clients: 8, keeping: Keeping::Threads, ..Config::default() };
    Store::in_process(config).expect("a small store can be made")
}

alone!(put_get_and_release_make_no_system_call {
    let store = store();
    let ids: Vec<ObjectId> = (0..PUTS as u64).map(id_of).collect();
    let child = Child::fork(|| {
        let mut room = Room::new();
        work(&store, &mut room, &ids);
        ask_nobody_any_more();
        work(&store, &mut room, &ids);
        0
    });
    let status = child.wait();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "a system call, or a failure: {status:?}");
});

alone!(the_filter_kills_whoever_makes_one {
    let child = Child::fork(|| {
        ask_nobody_any_more();
        // SAFETY: asks the kernel for a number.
        unsafe { libc::syscall(libc::SYS_getpid) };
        0
    });
    let status = child.wait();
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{status:?}");
});
