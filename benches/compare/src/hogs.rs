//! Busy neighbours: one process for each of the two cores, which does nothing but count.
//!
//! The one thing to know: they are stopped whenever it is not their contender's turn, so that a run
//! with hogs disturbs no run without.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::child::{HARNESS_CORE, OTHER_CORE, OwnedChild, end_with_parent, pin_to_core};
use crate::error::BenchError;
use crate::raw::{PAGE_BYTES, SharedPages, WORDS_PER_LINE};

/// A hog for each of these cores.
const CORES: [usize; 2] = [HARNESS_CORE, OTHER_CORE];
/// Steps of work between two additions to its count.
const STEPS: u64 = 1_000;
/// How long a hog may take to begin.
const SILENCE: Duration = Duration::from_secs(10);

/// The hogs and the page on which each counts, a line apart.
pub struct Hogs {
    pages: SharedPages,
    processes: Vec<OwnedChild>,
}

impl Hogs {
    /// Starts them; they wait until somebody wants them beside.
    pub fn start() -> Result<Self, BenchError> {
        let mut hogs = Self { pages: SharedPages::warm(PAGE_BYTES)?, processes: Vec::new() };
        let path = hogs.pages.path().display().to_string();
        for core in CORES {
            hogs.pages.words()[core * WORDS_PER_LINE].store(0, Ordering::Relaxed);
            let process = OwnedChild::start_role(&["hog", "--pages", &path, "--core", &core.to_string()])?;
            hogs.processes.push(process);
        }
        hogs.await_counts()?;
        hogs.processes.iter().for_each(OwnedChild::pause);
        Ok(hogs)
    }

    fn await_counts(&self) -> Result<(), BenchError> {
        let start = Instant::now();
        while CORES.iter().any(|core| self.count_of(*core) == 0) {
            if start.elapsed() > SILENCE {
                return Err(BenchError::Silent { waited_ms: SILENCE.as_millis() as u64 });
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn count_of(&self, core: usize) -> u64 {
        self.pages.words()[core * WORDS_PER_LINE].load(Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        CORES.iter().map(|core| self.count_of(*core)).sum()
    }

    /// Does something while they are busy.
    pub fn beside<T>(&self, run: impl FnOnce() -> T) -> T {
        self.processes.iter().for_each(OwnedChild::resume);
        let result = run();
        self.processes.iter().for_each(OwnedChild::pause);
        result
    }

    /// What the hogs together count in a second while that is done.
    pub fn rate_beside<E>(&self, run: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
        self.beside(|| {
            let (start, before) = (Instant::now(), self.count());
            run()?;
            let counted = self.count() - before;
            Ok(counted as f64 * 1e9 / start.elapsed().as_nanos() as f64)
        })
    }
}

/// A hog; ends with the harness.
pub fn hog(pages: &Path, core: usize, parent: u32) -> Result<(), BenchError> {
    end_with_parent(parent)?;
    pin_to_core(core);
    let pages = SharedPages::open(pages)?;
    let count = &pages.words()[core * WORDS_PER_LINE];
    let mut state = 1_u64;
    loop {
        for _ in 0..STEPS {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}
