//! Whose programs a test runs: this release's, or those of the release before.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
};

use crate::{instance::repository, process::Variables};

/// The programs of a release: ingest, dispatcher and the command `fanfare`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    folder: PathBuf,
}

impl Release {
    /// This one, which the tests belong to.
    ///
    /// # Panics
    /// When this program does not know where it is.
    pub fn present() -> Self {
        let mut folder = std::env::current_exe().expect("the path of this program");
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        Self { folder }
    }

    /// The one before, whose commit is in `tests/previous-release`. Its programs are built by whoever asks first, which
    /// takes some minutes.
    ///
    /// # Errors
    /// With the reason, where they cannot be built.
    pub fn previous() -> Result<Self, String> {
        static BUILT: LazyLock<Result<Release, String>> = LazyLock::new(build_previous);
        BUILT.clone()
    }

    /// The path of one of its programs.
    ///
    /// # Panics
    /// When it has not been built.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        assert!(path.exists(), "{} is missing: run the tests with `make test`, which builds it", path.display());
        path
    }

    /// Runs its `fanfare` with these arguments and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn fanfare(&self, variables: &Variables, arguments: &[&str]) -> String {
        let (printed, failed) = self.try_fanfare(variables, arguments);
        assert!(failed.is_none(), "fanfare {arguments:?} failed: {}", failed.unwrap_or_default());
        printed
    }

    /// Runs its `fanfare` with these arguments; gives what it prints, and its complaint where it fails.
    pub fn try_fanfare(&self, variables: &Variables, arguments: &[&str]) -> (String, Option<String>) {
        let mut command = Command::new(self.program("fanfare"));
        let output = command.args(arguments).env_clear().envs(variables).output().expect("fanfare starts");
        let failed = (!output.status.success()).then(|| text(&output.stderr));
        (text(&output.stdout), failed)
    }
}

fn build_previous() -> Result<Release, String> {
    let mut script = Command::new(repository().join("deploy/dev/previous"));
    let output = script.stdin(Stdio::null()).output().map_err(|error| format!("deploy/dev/previous: {error}"))?;
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    Ok(Release { folder: text(&output.stdout).into() })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
