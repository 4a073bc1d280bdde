//! What can go wrong with the database, sorted by what the caller does about it.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// A failed statement.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, refuses connections, or went away meanwhile: whether the statement
    /// was committed is unknown. To be tried again later.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Two transactions stood in each other's way and this one was rolled back. To be tried again now.
    #[error("the transaction was rolled back in favour of another: {0}")]
    Conflict(#[source] tokio_postgres::Error),
    /// A value that the database does not take: the same statement fails again.
    #[error("the database does not take a value: {0}")]
    Data(#[source] tokio_postgres::Error),
    /// A stored secret cannot be read with the keys that this process was given.
    #[error(transparent)]
    Keyring(#[from] crate::KeyringError),
    /// A row does not hold what this release writes.
    #[error("table {table} holds a row that this release cannot read: {what}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A setting of the database by which it may lose what it has committed.
    #[error("{setting} is {value}: what is committed may be lost when the server dies; set it to on")]
    NotDurable {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// The migrations were not run, or could not be.
    #[error("the migration failed: {0}")]
    Migration(#[from] refinery::Error),
    /// Anything else: a fault of this program or of the database's set-up.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] tokio_postgres::Error),
}

impl StoreError {
    /// Whether the same statement may succeed later without any change to it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_))
    }

    /// Whether the statement may succeed later, if only because somebody mends the database's set-up.
    pub fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Refused(_))
    }

    /// Whether a row was refused because there is no partition for its moment of acceptance.
    pub fn lacks_partition(&self) -> bool {
        matches!(self, Self::Data(error) if error.code() == Some(&SqlState::CHECK_VIOLATION))
    }

    pub(crate) fn corrupt(table: &'static str, what: impl Into<String>) -> Self {
        Self::Corrupt { table, what: what.into() }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // Without a code the error came from the connection or from our own values.
            return if error.is_closed() || has_io_source(&error) {
                Self::Unavailable(Box::new(error))
            } else {
                Self::Refused(error)
            };
        };
        match state.code().get(..2) {
            // Connection exceptions; out of resources; shutdown and cancellation; system errors.
            Some("08" | "53" | "57" | "58") => Self::Unavailable(Box::new(error)),
            Some("40") => Self::Conflict(error),
            Some("22" | "23") => Self::Data(error),
            // A lock that was not had in time; a standby that is not (yet) the primary.
            _ if *state == SqlState::LOCK_NOT_AVAILABLE => Self::Conflict(error),
            _ if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Self::Unavailable(Box::new(error)),
            _ => Self::Refused(error),
        }
    }
}

fn has_io_source(error: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<std::io::Error>() || error.is::<tokio::time::error::Elapsed>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            error => Self::Unavailable(Box::new(error)),
        }
    }
}
