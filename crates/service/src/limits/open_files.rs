//! The process's limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of each process beside its budget: listeners, the broker's connections, the log.
const OWN: usize = 64;

/// The limit of open files is too low for a budget.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and {setting} = {value} needs {needed}: raise the hard limit (ulimit -Hn, or \
     LimitNOFILE of the service), or lower {setting} to at most {most}"
)]
pub struct TooFewFiles {
    limit: u64,
    needed: u64,
    setting: &'static str,
    value: usize,
    most: u64,
}

/// Raises the limit of open files to the hard limit. Returns the number of files that remain beside a budget and
/// `others`: connections to the database, and to other listeners. The budget is the `value` of `setting`, with
/// `of_each` files each.
///
/// # Errors
/// If the limit stays below the need.
pub fn raise_open_files(
    setting: &'static str,
    value: usize,
    of_each: u64,
    others: usize,
) -> Result<usize, TooFewFiles> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current }.unwrap_or(u64::MAX);
    let beside = (others + OWN) as u64;
    let needed = value as u64 * of_each + beside;
    match limit.checked_sub(needed) {
        Some(rest) => Ok(usize::try_from(rest).unwrap_or(usize::MAX)),
        None => {
            let most = limit.saturating_sub(beside) / of_each;
            Err(TooFewFiles { limit, needed, setting, value, most })
        }
    }
}
