//! What this machine offers: memory, limits, kernel.
//!
//! The one thing to know: every number is optional, because containers hide files. This file must
//! not judge; `cli::doctor` does.

use raylet_core::Resources;
use raylet_core::resources::Amount;
use std::path::Path;

/// The share of memory a store takes where nobody says otherwise, in percent: Ray's.
const CAPACITY_PERCENT: u64 = 30;
const CAPACITY_BYTES_MIN: u64 = 64 << 20;

/// 30 % of what this process may use of memory, whole MiB.
pub fn default_capacity_bytes() -> u64 {
    let limits = [total_memory_bytes(), cgroup_memory_bytes()];
    let memory_bytes = limits.into_iter().flatten().min().unwrap_or(1 << 30);
    let share = memory_bytes / 100 * CAPACITY_PERCENT;
    (share & !((1 << 20) - 1)).max(CAPACITY_BYTES_MIN)
}

/// What tasks may have where nobody says otherwise: the processors and GPUs that this process may use,
/// and the memory that the store leaves.
pub fn default_resources(capacity_bytes: u64) -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    let limits = [total_memory_bytes(), cgroup_memory_bytes()];
    let memory_bytes = limits.into_iter().flatten().min().unwrap_or(1 << 30).saturating_sub(capacity_bytes);
    let gpus = Amount::whole(gpu_names().len() as u32);
    Resources::cpus(Amount::whole(cpus)).with_gpus(gpus).with_memory(memory_bytes)
}

/// The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.
pub fn gpu_names() -> Vec<String> {
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        let names = visible.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "-1");
        return names.map(str::to_owned).collect();
    }
    let count = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, |gpus| gpus.flatten().count());
    (0..count).map(|index| index.to_string()).collect()
}

/// The machine's memory.
pub fn total_memory_bytes() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The smallest memory limit of our control group and those above it; `None` where there is none.
pub fn cgroup_memory_bytes() -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    groups.lines().filter_map(limit_of_group).min()
}

/// The smallest number of processes that our control group and those above it allow.
pub fn cgroup_process_count() -> Option<u64> {
    unified_files("pids.max").filter_map(|text| text.trim().parse().ok()).min()
}

/// How many processors' time our control group may use, where that is limited.
pub fn cgroup_cpus() -> Option<f64> {
    let quotas = unified_files("cpu.max").filter_map(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    quotas.reduce(f64::min)
}

/// The texts of a file of our control group and of those above it, version 2.
fn unified_files(file: &str) -> impl Iterator<Item = String> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    let groups = Path::new(&group).ancestors().filter_map(|path| path.strip_prefix("/").ok().map(Path::to_owned));
    let paths: Vec<_> = groups.map(|group| Path::new("/sys/fs/cgroup").join(group).join(file)).collect();
    paths.into_iter().filter_map(|path| std::fs::read_to_string(path).ok())
}

/// One line of `/proc/self/cgroup`: `<number>:<controllers>:<path>`; no controllers means version 2.
fn limit_of_group(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    // Inside a container the path may be one of the outside: its ancestors end at the root.
    let groups = Path::new(group).ancestors().filter_map(|path| path.strip_prefix("/").ok());
    groups.filter_map(|group| limit_in(&Path::new(root).join(group).join(file))).min()
}

fn limit_in(path: &Path) -> Option<u64> {
    // Version 1 writes "no limit" as a number no machine has.
    const NO_LIMIT: u64 = 1 << 60;
    let limit: u64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some(limit).filter(|&limit| limit < NO_LIMIT)
}

/// The first line of a file of the kernel's, trimmed.
pub fn kernel_value(path: &str) -> Option<String> {
    read(path).map(|text| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The choice between brackets, as in `always [never]`.
pub fn bracketed(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(choice, _)| choice)
}

/// Major and minor number of the kernel's release.
pub fn kernel_version() -> Option<(u32, u32)> {
    parse_version(&kernel_value("/proc/sys/kernel/osrelease")?)
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_read() {
        assert_eq!(parse_version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_version("5.14+x"), Some((5, 14)));
        assert_eq!(parse_version("weird"), None);
        assert_eq!(bracketed("always within_size [advise] never"), Some("advise"));
        assert_eq!(bracketed("none"), None);
    }

    #[test]
    fn the_capacity_is_below_the_memory() {
        let total = total_memory_bytes().unwrap();
        let capacity = default_capacity_bytes();
        assert!(capacity == CAPACITY_BYTES_MIN || capacity < total / 3);
        assert_eq!(capacity % (1 << 20), 0);
    }
}
