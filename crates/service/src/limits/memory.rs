//! The memory that the process may use.

use std::{fs, path::Path};

/// The limit of the container, or else the memory of the machine, in bytes. `None` if the system tells neither.
pub(crate) fn memory_limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = limit_files(&groups).iter().filter_map(|file| limit(&fs::read_to_string(file).ok()?)).min();
    of_groups.or_else(|| machine(&fs::read_to_string("/proc/meminfo").ok()?))
}

/// The files with limits of the process's control groups, of both versions, by the content of `/proc/self/cgroup`. The
/// limits of all groups above bind a group, too.
fn limit_files(groups: &str) -> Vec<String> {
    let path = |controller: &str| {
        let line = groups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(controller)?.strip_prefix(':'));
        Path::new(line.unwrap_or("/")).ancestors().map(|group| group.display().to_string()).collect::<Vec<_>>()
    };
    // The second version has no controllers in its line.
    let second = path("").into_iter().map(|group| format!("/sys/fs/cgroup{group}/memory.max"));
    let first = path("memory").into_iter().map(|group| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"));
    second.chain(first).collect()
}

/// A limit in bytes; `None` for `max`, and for the number by which the first version means none.
fn limit(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|bytes| *bytes < usize::MAX / 4)
}

/// The memory of the machine by the content of `/proc/meminfo`, in bytes.
fn machine(text: &str) -> Option<usize> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_above_bound_a_group() {
        let files = limit_files("4:memory:/docker/one\n1:name=systemd:/\n0::/pods/one\n");
        let names = [
            "/sys/fs/cgroup/pods/one/memory.max",
            "/sys/fs/cgroup/pods/memory.max",
            "/sys/fs/cgroup//memory.max",
            "/sys/fs/cgroup/memory/docker/one/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory//memory.limit_in_bytes",
        ];
        assert_eq!(files, names);
    }

    #[test]
    fn limits_and_memory_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            (limit("268435456\n"), limit("max\n"), limit("9223372036854771712\n")),
            (Some(268_435_456), None, None)
        );
        assert_eq!(machine("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000 * 1024));
        assert!(memory_limit().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
