//! Handlers that run around `fork`, so that what a child inherits is consistent.
//!
//! The one thing to know: the process has one set of `pthread_atfork` callbacks and one registry
//! behind them. The registry is locked from before the fork to after it, so a child never inherits it
//! half-changed, and forks of several threads take turns. It must not know what handlers do.
//!
//! ```text
//! before_fork            lock the registry; each living handler, newest first
//!   fork
//! after_fork_in_parent   each of the same handlers, oldest first; unlock
//! after_fork_in_child    likewise, in the child
//! ```
//!
//! `posix_spawn`, `vfork` and bare `clone` calls run no handlers.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What wants to know of forks.
///
/// Handlers must not fork, register handlers, or panic (that aborts). In the child only the forking
/// thread exists: no lock that another thread may have held is ever released there, so a handler
/// takes in `before_fork` what it needs and lets go of it in both of the others.
pub trait AtFork: Send + Sync {
    /// Runs in the forking thread before the fork.
    fn before_fork(&self);
    /// Runs in the forking thread after the fork, also if the fork failed.
    fn after_fork_in_parent(&self);
    /// Runs first in the child, which is single-threaded: no allocation, nothing that may block. A
    /// handler whose last owner vanished during the fork is dropped in the child after this.
    fn after_fork_in_child(&self);
}

/// The handlers.
struct Registry {
    handlers: Vec<Weak<dyn AtFork>>,
    /// The living ones while a fork is under way; kept to reuse its memory.
    running: Vec<Arc<dyn AtFork>>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { handlers: Vec::new(), running: Vec::new() });

/// The registry's lock between two callbacks of one fork.
struct Held(UnsafeCell<Option<MutexGuard<'static, Registry>>>);

// SAFETY: only whoever holds the registry's lock touches the cell: `begin` fills it having locked,
// and the `end` of the same fork, in the same thread or its copy in the child, empties it to unlock.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Has the handler called around each fork for as long as it lives.
///
/// Call it with no lock held that any handler takes: a fork holds the registry while it waits for
/// handlers.
pub fn register(handler: Weak<dyn AtFork>) {
    install();
    let mut registry = lock();
    // Only before the list would grow: with a look at all of them each time, many would take for ever.
    if registry.handlers.len() == registry.handlers.capacity() {
        registry.handlers.retain(|known| known.strong_count() > 0);
    }
    registry.handlers.push(handler);
}

fn lock() -> MutexGuard<'static, Registry> {
    // A panic while it is held can only be one of allocation, which leaves the list whole.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the callbacks installed when the library is loaded. Doing so at the first `register` only is
/// too late: a fork already under way in another thread would miss `before_fork`, and its child could
/// inherit the registry locked for good.
#[used]
#[unsafe(link_section = ".init_array")]
static INSTALL_AT_LOAD: extern "C" fn() = install;

/// Installs the callbacks once in the life of this process and of what it forks.
extern "C" fn install() {
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    if IS_INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: the callbacks are functions of this library, which the C library forgets if the library
    // is unloaded, and they do not unwind.
    let errno =
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
    assert!(errno == 0, "pthread_atfork fails only without memory");
}

extern "C" fn before_fork() {
    let mut registry = lock();
    let registry_now = &mut *registry;
    let living = registry_now.handlers.iter().filter_map(Weak::upgrade);
    registry_now.running.extend(living);
    for handler in registry_now.running.iter().rev() {
        handler.before_fork();
    }
    // SAFETY: we hold the lock, so nobody else touches the cell: see `Held`.
    unsafe { *HELD.0.get() = Some(registry) };
}

extern "C" fn after_fork_in_parent() {
    end(|handler| handler.after_fork_in_parent());
}

extern "C" fn after_fork_in_child() {
    end(|handler| handler.after_fork_in_child());
}

fn end(notify: impl Fn(&dyn AtFork)) {
    // SAFETY: this thread, or the one it is the copy of, locked in `before_fork`: see `Held`.
    let Some(mut registry) = (unsafe { (*HELD.0.get()).take() }) else {
        return; // No `before_fork` ran. The C library does not run half of a set of callbacks.
    };
    for handler in &registry.running {
        notify(handler.as_ref());
    }
    // A handler may lose its last owner meanwhile. Its drop runs without the lock, as it may register
    // or drop windows of its own; the list's memory goes back for the next fork.
    let mut finished = mem::take(&mut registry.running);
    drop(registry);
    finished.clear();
    keep(finished);
}

/// Gives the emptied list back, unless another fork already has a list of its own.
fn keep(list: Vec<Arc<dyn AtFork>>) {
    if let Ok(mut registry) = REGISTRY.try_lock()
        && registry.running.capacity() == 0
    {
        registry.running = list;
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Registry").field("handlers", &self.handlers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use nix::sys::wait::WaitStatus;

    use super::*;
    use crate::testing::outcome_in_child;

    /// Counts what it hears; other tests of this process fork too, so exact counts are the child's.
    #[derive(Default)]
    struct Counter {
        before: AtomicU32,
        parent: AtomicU32,
        child: AtomicU32,
    }

    impl AtFork for Counter {
        fn before_fork(&self) {
            self.before.fetch_add(1, Ordering::SeqCst);
        }
        fn after_fork_in_parent(&self) {
            self.parent.fetch_add(1, Ordering::SeqCst);
        }
        fn after_fork_in_child(&self) {
            self.child.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn registered() -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        let handler: Arc<dyn AtFork> = counter.clone();
        register(Arc::downgrade(&handler));
        counter
    }

    fn check_exit(run: impl FnOnce() -> i32) {
        let outcome = outcome_in_child(run);
        assert!(matches!(outcome, WaitStatus::Exited(_, 0)), "{outcome:?}");
    }

    #[test]
    fn handlers_hear_of_a_fork_on_both_sides() {
        let counter = registered();
        check_exit(|| {
            let before = counter.before.load(Ordering::SeqCst);
            let parent = counter.parent.load(Ordering::SeqCst);
            let child = counter.child.load(Ordering::SeqCst);
            i32::from(child != 1 || before != parent + 1)
        });
        let before = counter.before.load(Ordering::SeqCst);
        assert!(before >= 1);
        assert!(counter.parent.load(Ordering::SeqCst) >= 1);
        assert_eq!(counter.child.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn child_can_register_and_fork_again() {
        check_exit(|| {
            let counter = registered();
            let outcome = outcome_in_child(|| counter.child.load(Ordering::SeqCst) as i32);
            i32::from(!matches!(outcome, WaitStatus::Exited(_, 1)))
        });
    }

    #[test]
    fn dead_handlers_are_dropped_before_the_list_grows() {
        let counter = registered();
        let handler: Arc<dyn AtFork> = counter.clone();
        let weak = Arc::downgrade(&handler);
        drop((counter, handler));
        drop(registered());
        // A fork of another test may hold the handler for its duration; then it is gone.
        while weak.strong_count() > 0 {
            thread::yield_now();
        }
        let capacity = lock().handlers.capacity();
        let _living: Vec<_> = (0..=capacity).map(|_| registered()).collect();
        let is_known = lock().handlers.iter().any(|known| known.ptr_eq(&weak));
        assert!(!is_known);
    }

    #[test]
    fn forks_see_a_whole_registry_while_others_change_it() {
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    drop(registered());
                }
            });
            for _ in 0..100 {
                check_exit(|| {
                    drop(registered());
                    0
                });
            }
            is_done.store(true, Ordering::Relaxed);
        });
    }
}
