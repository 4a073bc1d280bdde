//! Programs of `clients/node`: publishers and receivers that share no code with Fanfare.

use std::{path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

const MISSING: &str =
    "Node 18 or later and the packages of tests/clients/node are needed: run `make test`, which installs them";

/// A command for a program of `clients/node`, still without arguments.
///
/// # Panics
/// If the packages are not installed.
pub fn program(name: &str) -> Command {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/node");
    assert!(folder.join("node_modules").is_dir(), "{MISSING}");
    let mut node = Command::new("node");
    node.arg(folder.join(name)).kill_on_drop(true);
    node
}

/// Runs a program to the end with `input` on standard input. Returns the printed lines.
///
/// # Panics
/// If the program cannot be started, or fails.
pub async fn node(name: &str, arguments: &[&str], input: String) -> Vec<String> {
    let mut node = program(name);
    let mut node = node.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(MISSING);
    let mut stdin = node.stdin.take().expect("a piped standard input");
    // Writes concurrently: the program prints while reading, and a full pipe would stop both.
    let writer = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    let output = node.wait_with_output().await.expect("the program's output");
    assert!(output.status.success(), "{name} failed: {}", output.status);
    writer.await.expect("the writer ends").expect("the program reads all of the input");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}
