//! Errors of the archive.

use std::time::Duration;

/// A failure of the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The settings yield no object storage.
    #[error("cannot use the archive: {0}")]
    Settings(object_store::Error),
    /// Certificates for the connections cannot be used.
    #[error("cannot use the archive: {0}")]
    Roots(#[from] fanfare_tls::InvalidRoots),
    /// The TLS library refuses its own defaults.
    #[error("cannot use the archive: {0}")]
    Tls(#[from] rustls::Error),
    /// The object storage refused a request, or did not answer.
    #[error("cannot {action} {path}: {cause}")]
    Storage {
        /// The failed action, such as `write`.
        action: &'static str,
        /// Path of the object.
        path: String,
        /// Cause.
        cause: object_store::Error,
    },
    /// The object storage did not answer in time.
    #[error("cannot {action} {path}: no answer within {limit:?}")]
    TimedOut {
        /// The failed action.
        action: &'static str,
        /// Path of the object.
        path: String,
        /// Deadline of the action.
        limit: Duration,
    },
    /// An object differs from the manifest, or cannot be read.
    #[error("{path} is damaged: {fault}")]
    Damaged {
        /// Path of the object.
        path: String,
        /// The fault.
        fault: String,
    },
    /// Another deployment archived the day.
    #[error("{path} is the day of another deployment: give each deployment a FANFARE_ARCHIVE_URL of its own")]
    OtherDeployment {
        /// Path of the day.
        path: String,
    },
    /// Another release wrote the manifest.
    #[error("{path} has the format {format}, and this release reads format {known}: use the release that wrote it")]
    Format {
        /// Path of the manifest.
        path: String,
        /// Format of the manifest.
        format: u32,
        /// Format of this release.
        known: u32,
    },
}

/// A failed step of [`Archive::probe`](crate::Archive::probe).
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// An action failed.
    #[error(transparent)]
    Failed(#[from] ArchiveError),
    /// The storage replaced an object that was to be created: two writers could replace each other's manifest.
    #[error("{0} was created twice: the object storage ignores the condition If-None-Match")]
    Replaced(String),
    /// The object that was read is not the object that was written.
    #[error("{0} was written, and read with another content")]
    Changed(String),
}
