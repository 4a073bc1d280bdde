//! Processor time, memory and written bytes of processes, by the kernel's counters.

use std::{collections::HashMap, fs, time::Duration};

/// Ticks per second of the kernel's counters: 100 on every Linux that Rust supports.
const TICKS: u64 = 100;

/// Returns the processor time of a process and of its descendants, including ended descendants.
pub(crate) fn processor_time(root: u32) -> Duration {
    let all = all_processes();
    let ticks: u64 = process_tree(&all, root).map(|stat| stat.ticks).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Returns the peak memory of a process in bytes; 0 if the process has ended.
pub(crate) fn peak_memory(process: u32) -> u64 {
    status(process, "VmHWM:")
}

/// Returns the current memory of a process in bytes; 0 if the process has ended.
pub(crate) fn memory(process: u32) -> u64 {
    status(process, "VmRSS:")
}

/// Returns the number of bytes that a process and its living descendants have written to files.
pub(crate) fn written_bytes(root: u32) -> u64 {
    let all = all_processes();
    let tree = all.iter().filter(|(id, _)| is_in_tree(&all, **id, root));
    let written = tree.filter_map(|(id, _)| {
        let io = fs::read_to_string(format!("/proc/{id}/io")).ok()?;
        io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse::<u64>().ok()
    });
    written.sum()
}

fn status(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn all_processes() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, stat(id)?))).collect()
}

fn stat(process: u32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the program's name, may contain any character. The split leaves the third field first.
    let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // Ticks of the process itself, and of its ended children.
    let ticks = [14, 15, 16, 17].into_iter().map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}

fn process_tree(all: &HashMap<u32, Stat>, root: u32) -> impl Iterator<Item = &Stat> {
    all.iter().filter(move |(id, _)| is_in_tree(all, **id, root)).map(|(_, stat)| stat)
}

/// True if a process is `root`, or a descendant of `root`.
fn is_in_tree(all: &HashMap<u32, Stat>, mut id: u32, root: u32) -> bool {
    while id != root {
        match all.get(&id) {
            Some(stat) if stat.parent > 0 => id = stat.parent,
            _ => return false,
        }
    }
    true
}
