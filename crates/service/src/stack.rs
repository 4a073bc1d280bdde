//! Room for what is read by recursion.

use std::{io, os::unix::process::CommandExt, process::Command};

/// The variable by which Rust's standard library learns how large the stacks of new threads are.
const VARIABLE: &str = "RUST_MIN_STACK";

/// Bytes of a thread's stack. Only what is used of it is ever memory.
const SIZE: usize = 512 * 1024 * 1024;

/// Gives every thread of the process a stack that a message's headers cannot overflow.
///
/// lapin reads headers by recursion, in a thread whose size it leaves to the default, and a frame has room
/// for some 26,000 tables in one another: a single message would end every process that consumes it. The
/// default can only be set from outside, so the process replaces itself once, under the same id. To be
/// called before anything else.
///
/// # Errors
/// When the program cannot be started again.
pub fn deepen_stacks() -> io::Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    Err(Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, SIZE.to_string()).exec())
}
