//! Programs of `clients/python`, with their packages in a virtual environment in the build folder.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::{process::Command, sync::OnceCell};

const MISSING: &str =
    "Python 3.10 or later with its module venv is needed (on Debian and Ubuntu: apt-get install python3-venv)";

/// A command for a program of `clients/python`, still without arguments.
///
/// # Panics
/// If Python is missing, or the packages cannot be installed.
pub async fn python(program: &str) -> Command {
    let mut command = bare().await;
    command.arg(clients().join(program));
    command
}

/// A command for a program elsewhere, with the same packages; still without arguments.
///
/// # Panics
/// If Python is missing, or the packages cannot be installed.
pub async fn python_at(program: &Path) -> Command {
    let mut command = bare().await;
    command.arg(program);
    command
}

/// A command for a module of an installed package, still without arguments.
///
/// # Panics
/// If Python is missing, or the packages cannot be installed.
pub async fn python_module(module: &str) -> Command {
    let mut command = bare().await;
    command.args(["-m", module]);
    command
}

async fn bare() -> Command {
    static INTERPRETER: OnceCell<PathBuf> = OnceCell::const_new();
    let mut command = Command::new(INTERPRETER.get_or_init(interpreter).await);
    command.kill_on_drop(true);
    command
}

fn clients() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// The interpreter of an environment with exactly the packages of `requirements.txt`. A change of the requirements or
/// of the Python version makes a new environment.
async fn interpreter() -> PathBuf {
    let requirements = clients().join("requirements.txt");
    let version = run(Command::new("python3").arg("--version"), MISSING).await;
    let digest = Sha256::new().chain_update(version).chain_update(fs::read(&requirements).expect("the requirements"));
    let name = digest.finalize()[..8].iter().fold("python-".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let environment = build_folder().join(name);
    let interpreter = |environment: &Path| environment.join("bin/python");
    if interpreter(&environment).exists() {
        return interpreter(&environment);
    }
    // Built under a temporary name until complete: another test may build the same environment meanwhile.
    let fresh = environment.with_extension(std::process::id().to_string());
    let _ = fs::remove_dir_all(&fresh);
    run(Command::new("python3").args(["-m", "venv"]).arg(&fresh), MISSING).await;
    let mut install = Command::new(interpreter(&fresh));
    install.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--requirement"]);
    run(install.arg(&requirements), "pip cannot install the packages of tests/clients/python").await;
    if fs::rename(&fresh, &environment).is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    interpreter(&environment)
}

/// The folder that holds this program's binary.
fn build_folder() -> PathBuf {
    let mut folder = std::env::current_exe().expect("the path of this program");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// Runs a command to the end. Returns standard output.
async fn run(command: &mut Command, complaint: &str) -> Vec<u8> {
    let output = command.output().await.unwrap_or_else(|error| panic!("{complaint}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{complaint}:\n{}{}", text(&output.stdout), text(&output.stderr));
    output.stdout
}
