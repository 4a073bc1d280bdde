//! Errors of the database, sorted by the caller's reaction.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// A failed statement.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, refuses connections, or broke the connection. The statement may have committed.
    /// Retry later.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// PostgreSQL rolled this transaction back in favour of another, or a lock timeout ended the statement. Retry at
    /// once.
    #[error("the transaction was rolled back in favour of another: {0}")]
    Conflict(#[source] tokio_postgres::Error),
    /// The database refuses a value: the same statement fails again.
    #[error("the database does not take a value: {0}")]
    Data(#[source] tokio_postgres::Error),
    /// No key of this process decrypts a stored secret.
    #[error(transparent)]
    Keyring(#[from] crate::KeyringError),
    /// This release cannot read a row.
    #[error("table {table} holds a row that this release cannot read: {what}")]
    Corrupt {
        /// Table with the row.
        table: &'static str,
        /// The row, and the fault.
        what: String,
    },
    /// A setting that lets the database lose committed transactions.
    #[error("{setting} is {value}: committed data may be lost when the server dies; set {setting} to on")]
    NotDurable {
        /// Name of the setting.
        setting: &'static str,
        /// Value of the setting.
        value: String,
    },
    /// A pooler lends the sessions of PostgreSQL to transactions.
    #[error(
        "the connections share sessions of PostgreSQL, as behind PgBouncer in transaction mode: connect to PostgreSQL \
         itself, or set pool_mode to session"
    )]
    SharedSessions,
    /// The caller's other statements use all connections of its share.
    #[error("the caller's other statements use all its connections")]
    Busy,
    /// A migration failed.
    #[error("the migration failed: {0}")]
    Migration(#[from] refinery_core::Error),
    /// Any other error: a fault of this program or of the database's configuration.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] tokio_postgres::Error),
}

impl StoreError {
    /// True if the same statement may succeed later, unchanged.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_))
    }

    /// True if the statement may succeed later, at the latest after an operator repairs the database's configuration.
    pub fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Refused(_))
    }

    /// True if no partition exists for the row's moment of acceptance.
    pub fn lacks_partition(&self) -> bool {
        matches!(self, Self::Data(error) if error.code() == Some(&SqlState::CHECK_VIOLATION))
    }

    /// True if a row refers to a row that does not exist, or is referred to by another.
    pub fn breaks_reference(&self) -> bool {
        matches!(self, Self::Data(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION))
    }

    pub(crate) fn corrupt(table: &'static str, what: impl Into<String>) -> Self {
        Self::Corrupt { table, what: what.into() }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // Without a code the error comes from the connection or from our own values.
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
            // A lock timeout; a standby that is not (yet) the primary.
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
