//! The programs of a test: of this release, or of the previous release.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
};

use crate::{servers::instance::repository, world::process::Variables};

/// The folder with ingest, dispatcher and the command `fanfare` of a release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Release {
    folder: PathBuf,
}

impl Release {
    /// The release that the tests belong to.
    ///
    /// # Panics
    /// If the path of the test's program is unknown.
    pub fn present() -> Self {
        let mut folder = std::env::current_exe().expect("the path of this program");
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        Self { folder }
    }

    /// The release at the commit in `tests/previous-release`. Builds the programs, unless they exist.
    ///
    /// # Panics
    /// If the programs cannot be built.
    pub fn previous() -> Self {
        static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
            let mut script = Command::new(repository().join("deploy/dev/previous"));
            let output = script.stdin(Stdio::null()).output().expect("deploy/dev/previous starts");
            assert!(output.status.success(), "deploy/dev/previous failed: {}", text(&output.stderr));
            text(&output.stdout).into()
        });
        Self { folder: FOLDER.clone() }
    }

    /// The path of a program.
    ///
    /// # Panics
    /// If the program has not been built.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        let missing = "is missing: run the tests with `make test`, which builds all programs";
        assert!(path.exists(), "{} {missing}", path.display());
        path
    }

    /// Runs `fanfare` with these arguments. Returns the printed text.
    ///
    /// # Panics
    /// If the command fails.
    pub fn fanfare(&self, variables: &Variables, arguments: &[&str]) -> String {
        let (printed, failed) = self.try_fanfare(variables, arguments);
        assert!(failed.is_none(), "fanfare {arguments:?} failed: {}", failed.unwrap_or_default());
        printed
    }

    /// Runs `fanfare` with these arguments. Returns the printed text, and standard error if the command fails.
    pub fn try_fanfare(&self, variables: &Variables, arguments: &[&str]) -> (String, Option<String>) {
        let mut command = Command::new(self.program("fanfare"));
        let output = command.args(arguments).env_clear().envs(variables).output().expect("fanfare starts");
        let failed = (!output.status.success()).then(|| text(&output.stderr));
        (text(&output.stdout), failed)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
