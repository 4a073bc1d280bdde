//! The process's limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files in addition to the attempts' connections: listeners, pools, idle connections.
const BESIDE: u64 = 512;

/// The limit of open files is too low for the attempts.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and {setting} = {attempts} needs {needed}: raise the hard limit (ulimit -Hn, or \
     LimitNOFILE of the service), or lower {setting}"
)]
pub struct TooFewFiles {
    limit: u64,
    needed: u64,
    attempts: usize,
    setting: &'static str,
}

/// Raises the limit of open files to the hard limit. Each attempt in flight has a connection.
///
/// # Errors
/// If the limit stays below the need of `attempts`, the value of `setting`.
pub fn raise_open_files(setting: &'static str, attempts: usize) -> Result<(), TooFewFiles> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let needed = attempts as u64 + BESIDE;
    match limit {
        Some(limit) if limit < needed => Err(TooFewFiles { limit, needed, attempts, setting }),
        _ => Ok(()),
    }
}
