//! What processes cost: processor time and memory, as the kernel counts them.

use std::{collections::HashMap, fs, time::Duration};

/// Ticks in a second of the kernel's counters: 100 on every Linux that Rust runs on.
const TICKS: u64 = 100;

/// The processor time that a process has taken with all that it started, those that have ended included.
pub(crate) fn processor_time(root: u32) -> Duration {
    let all = all();
    let ticks: u64 = family(&all, root).map(|stat| stat.ticks).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// The most memory that a process has had at once, in bytes; 0 where it is gone.
pub(crate) fn peak_memory(process: u32) -> u64 {
    status(process, "VmHWM:")
}

/// The memory that a process has now, in bytes; 0 where it is gone.
pub(crate) fn memory(process: u32) -> u64 {
    status(process, "VmRSS:")
}

/// The bytes that a process and its living children have written to files.
pub(crate) fn written(root: u32) -> u64 {
    let all = all();
    let family = all.iter().filter(|(id, _)| belongs(&all, **id, root));
    let written = family.filter_map(|(id, _)| {
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

fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, stat(id)?))).collect()
}

fn stat(process: u32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the program's name, which may hold anything, the third field comes first.
    let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // Of the process itself, and of its children that have ended.
    let ticks = [14, 15, 16, 17].into_iter().map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}

fn family(all: &HashMap<u32, Stat>, root: u32) -> impl Iterator<Item = &Stat> {
    all.iter().filter(move |(id, _)| belongs(all, **id, root)).map(|(_, stat)| stat)
}

/// Whether a process is `root`, or was started by a process that belongs to it.
fn belongs(all: &HashMap<u32, Stat>, mut id: u32, root: u32) -> bool {
    while id != root {
        match all.get(&id) {
            Some(stat) if stat.parent > 0 => id = stat.parent,
            _ => return false,
        }
    }
    true
}
