//! Secrets of settings: texts of variables, or contents of files. A file is read again at each login, so that a rotated
//! password needs no restart.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A secret text: the value of a variable, or the content of a file. Cheap to clone; `Debug` does not show the text.
#[derive(Clone)]
pub struct Secret {
    file: Option<PathBuf>,
    /// The text that was read last.
    last: Arc<Mutex<String>>,
}

impl Secret {
    /// Secret with a fixed text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { file: None, last: Arc::new(Mutex::new(text.into())) }
    }

    /// Secret in a file. Line breaks at the end of the file do not count.
    ///
    /// # Errors
    /// If the file cannot be read as UTF-8, or is empty.
    pub fn in_file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let text = read(&path)?;
        Ok(Self { file: Some(path), last: Arc::new(Mutex::new(text)) })
    }

    /// True if the text may change.
    pub fn is_in_file(&self) -> bool {
        self.file.is_some()
    }

    /// The text that was read last.
    pub fn last_text(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text. Reads the file again, and keeps the text read before if the file cannot be read: a file may be missing
    /// for a moment while the orchestrator replaces it.
    pub fn text(&self) -> String {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.file {
            match read(path) {
                Ok(text) => *last = text,
                Err(error) => tracing::warn!(
                    path = %path.display(), %error,
                    "cannot read a secret again; using the secret as read before"
                ),
            }
        }
        last.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => write!(formatter, "Secret({})", path.display()),
            None => formatter.write_str("Secret(…)"),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"))
    } else {
        Ok(text.to_owned())
    }
}

/// Credentials of a server: user and password of settings beat user and password of the URL.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// URL of the server, or URLs of its nodes.
    pub url: Secret,
    /// User, if not the URL's.
    pub username: Option<Secret>,
    /// Password, if not the URL's.
    pub password: Option<Secret>,
}

impl Credentials {
    /// Credentials that are part of the URL.
    pub fn of_url(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), username: None, password: None }
    }

    /// User and password for the next login, where given apart from the URL.
    pub fn apart(&self) -> (Option<String>, Option<String>) {
        (self.username.as_ref().map(Secret::text), self.password.as_ref().map(Secret::text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_and_outlives_its_absence() {
        let path = std::env::temp_dir().join(format!("fanfare-secret-{}", std::process::id()));
        fs::write(&path, "first\r\n").expect("a file");
        let secret = Secret::in_file(&path).expect("a secret");
        assert_eq!(secret.text(), "first");
        fs::write(&path, " second \n\n").expect("a file");
        assert_eq!(secret.clone().text(), " second ");
        fs::remove_file(&path).expect("a file");
        assert_eq!(secret.text(), " second ");
        assert!(!format!("{secret:?}").contains("second"));
        assert!(Secret::in_file(&path).is_err());
        fs::write(&path, "\n").expect("a file");
        assert!(Secret::in_file(&path).expect_err("an empty file").to_string().contains("empty"));
        fs::remove_file(&path).expect("a file");
    }

    #[test]
    fn a_value_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(secret.text(), "hunter2");
        assert!(!secret.is_in_file());
        assert_eq!(
            format!("{:?}", Credentials::of_url("amqp://u:hunter2@h")),
            "Credentials { url: Secret(…), username: None, password: None }"
        );
    }
}
