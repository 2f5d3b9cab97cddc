//! What workers are started from, and what the pool says of them.
//!
//! The one thing to know: each driver is an environment of its own, so a worker runs for one job only,
//! and what it writes has one reader. The driver's executable is opened when the driver joins, so its
//! workers are the same program even if the file is replaced. This file must not choose when anything
//! is started.

use super::{Scheduler, WorkerRow};
use crate::pool::{self, Exit, Program, WorkerSpec};
use raylet_api::ProgramWish;
use raylet_api::work::EndWorker;
use raylet_core::effect::KillReason;
use raylet_core::event::Event;
use raylet_core::ids::{EnvId, JobId, WorkerId};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How much rather than a driver a worker is killed when memory runs out.
const OOM_SCORE_ADJ: i32 = 300;
/// How long a worker may take to end by itself: what its program does at its end.
const END_TIME: Duration = Duration::from_secs(5);

/// The program of a driver.
#[derive(Debug)]
pub(super) struct Env {
    /// Of its job, as users know it.
    number: u32,
    program: Program,
    /// Keeps what the program's path names.
    _executable: Option<File>,
    /// Why its zygote or workers did not start, when last one did not.
    pub(super) trouble: Option<String>,
    /// Its job is over, so nothing of it is started again.
    is_over: bool,
}

/// The executable that a process runs, whatever becomes of the file.
pub(crate) fn executable_of(pid: u32) -> Option<File> {
    File::open(format!("/proc/{pid}/exe")).ok()
}

impl Env {
    pub(super) fn new(number: u32, wish: &ProgramWish, executable: Option<File>) -> Env {
        let own = executable.as_ref().map_or_else(
            || "/proc/self/exe".to_owned(),
            |file| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()),
        );
        let program = Program::wished(wish, own.into());
        Env { number, program, _executable: executable, trouble: None, is_over: false }
    }
}

impl Scheduler {
    pub(super) fn start_zygote(&mut self, env: EnvId) {
        if let Some(row) = self.envs.get(&env) {
            self.pool.start_zygote(u64::from(env.0), row.program.clone());
        }
    }

    pub(super) fn start_worker(&mut self, worker: WorkerId, env: EnvId) {
        self.counters.worker_starts += 1;
        self.workers.insert(worker, WorkerRow::new(env));
        if let Some(row) = self.envs.get(&env) {
            self.worker_jobs.note(worker.0, row.number);
        }
        let spec = WorkerSpec {
            worker: worker.0,
            directory: Some(self.directory.clone()),
            label: "worker".to_owned(),
            oom_score_adj: OOM_SCORE_ADJ,
        };
        self.pool.start_worker(u64::from(env.0), spec);
    }

    /// One that has nothing to do ends by itself, as a program does, unless that takes too long.
    pub(super) fn end_worker(&mut self, worker: WorkerId, reason: KillReason) {
        match reason {
            KillReason::Idle | KillReason::CallsDone | KillReason::RoomNeeded => {
                self.send_worker(worker, EndWorker {});
                self.pool.kill_worker_after(worker.0, END_TIME);
            }
            _ => self.pool.kill_worker(worker.0),
        }
    }

    /// Nothing of the job is left: nobody needs its zygote.
    pub(super) fn job_ended(&mut self, job: JobId) {
        let Some(env) = self.jobs.remove(&job) else { return };
        if let Some(row) = self.envs.get_mut(&env) {
            row.is_over = true;
            self.pool.end_zygote(u64::from(env.0));
        }
        self.forget_env(env);
    }

    /// An environment goes with its last worker.
    pub(super) fn forget_env(&mut self, env: EnvId) {
        let is_used = self.workers.values().any(|worker| worker.env == env);
        let is_over = self.envs.get(&env).is_some_and(|row| row.is_over);
        if is_over && !is_used {
            self.envs.remove(&env);
            self.node.forget_env(env);
        }
    }

    pub(super) fn on_pool(&mut self, event: pool::Event) {
        match event {
            pool::Event::ZygoteReady { zygote, .. } => self.step(Event::ZygoteStarted { env: env_of(zygote) }),
            pool::Event::ZygoteEnded { zygote, error, exit, was_ready } => {
                let how =
                    error.map(|error| in_full(&error)).or_else(|| exit.map(|exit| format!("it ended with {exit}")));
                self.zygote_ended(env_of(zygote), how, was_ready);
            }
            pool::Event::WorkerStarted { worker, process } => {
                if let Some(row) = self.workers.get_mut(&WorkerId(worker)) {
                    row.process = Some(process);
                }
            }
            pool::Event::WorkerRefused { worker, error } => {
                let worker = WorkerId(worker);
                self.note_trouble(worker, error.to_string());
                self.worker_gone(worker, None);
            }
            pool::Event::WorkerEnded { worker, exit, .. } => {
                self.logs.ended(worker);
                self.worker_gone(WorkerId(worker), exit);
            }
        }
    }

    fn zygote_ended(&mut self, env: EnvId, how: Option<String>, was_ready: bool) {
        let Some(row) = self.envs.get_mut(&env) else { return };
        if row.is_over {
            return;
        }
        self.counters.zygote_deaths += 1;
        tracing::warn!(env = env.0, was_ready, how, "a zygote ended");
        row.trouble = Some(how.unwrap_or_else(|| "it ended".to_owned()));
        // One that never was ready will not be the next time.
        self.step(if was_ready { Event::ZygoteDied { env } } else { Event::ZygoteFailed { env } });
    }

    /// The worker's process and its group are gone, or never were.
    fn worker_gone(&mut self, worker: WorkerId, exit: Option<Exit>) {
        let Some(row) = self.workers.get_mut(&worker) else { return };
        row.is_gone = true;
        row.exit = exit;
        if !row.is_ready
            && !row.is_late
            && let Some(exit) = exit
        {
            self.note_trouble(worker, format!("its workers end before they are ready, with {exit}"));
        }
        self.bury_worker_if_dead(worker);
    }

    /// It was not ready in time, and is killed.
    pub(super) fn worker_is_late(&mut self, worker: WorkerId) {
        let Some(row) = self.workers.get_mut(&worker) else { return };
        row.is_late = true;
        let text = "one was not ready in time and was killed: something in its executable hangs before `main`, such \
                    as a constructor or a handler of forks";
        self.note_trouble(worker, text.to_owned());
    }

    fn note_trouble(&mut self, worker: WorkerId, text: String) {
        let env = self.workers.get(&worker).map(|row| row.env);
        if let Some(row) = env.and_then(|env| self.envs.get_mut(&env)) {
            tracing::warn!(worker = worker.0, text, "a worker did not start");
            row.trouble = Some(text);
        }
    }

    /// Why workers for this queue do not start, if they do not.
    pub(super) fn trouble_of(&self, queue: u64) -> Option<String> {
        let job = self.queues.get(&queue)?.job;
        self.trouble_of_job(job)
    }

    pub(super) fn trouble_of_job(&self, job: JobId) -> Option<String> {
        self.envs.get(self.jobs.get(&job)?)?.trouble.clone()
    }
}

fn env_of(zygote: u64) -> EnvId {
    EnvId(u32::try_from(zygote).expect("zygotes are numbered by environments"))
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
