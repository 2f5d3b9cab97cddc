//! What this machine offers: memory, limits, kernel.
//!
//! The one thing to know: every number is optional, because containers hide files. This file must
//! not judge; `cli::doctor` does.

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
