//! What user code sees of the place where it runs: its GPUs.
//!
//! The one thing to know: `CUDA_VISIBLE_DEVICES` is set only where the raylet says which GPUs a lease,
//! task or actor has, and only when that changes: CUDA reads it once, when a process first uses it.
//! This file must not know how GPUs are given out.

use crate::binding;

/// Read by CUDA when a process first uses it.
const GPUS_VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// The GPUs that this process has been told of.
#[derive(Debug, Default)]
pub(super) struct Environment {
    gpus: Option<String>,
}

impl Environment {
    /// Shows the GPUs of what runs next.
    pub(super) fn show_gpus(&mut self, gpus: Option<&str>) {
        let Some(gpus) = gpus.filter(|gpus| self.gpus.as_deref() != Some(gpus)) else { return };
        store_shm::process::set_variable(GPUS_VARIABLE, gpus);
        if let Some(language) = binding::language() {
            language.variable_set(GPUS_VARIABLE, gpus);
        }
        self.gpus = Some(gpus.to_owned());
    }
}
