//! The manifest of a day.

use std::fmt;

use jiff::{Timestamp, civil::Date};
use object_store::{ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Archive, ArchiveError};

/// Format that this release writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// Name of a day's manifest.
pub(crate) const NAME: &str = "manifest.json";

/// An archived table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// Sorted by application, moment of acceptance, and id.
    Events,
    /// Sorted by application and id.
    Deliveries,
    /// Sorted by the delivery's id and the attempt's number.
    Attempts,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 3] = [Self::Events, Self::Deliveries, Self::Attempts];

    /// Name of the table, in names of objects and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliveries => "deliveries",
            Self::Attempts => "attempts",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Contents of a day. The presence of the manifest means that the day is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of manifest and objects.
    pub format: u32,
    /// The deployment that wrote the day.
    pub deployment: Uuid,
    /// The day of acceptance, in UTC.
    pub day: Date,
    /// Time of the manifest.
    pub written_at: Timestamp,
    /// Newest migration of the database: the columns of the rows.
    pub schema: i64,
    /// The objects, by table and key.
    pub objects: Vec<ObjectEntry>,
}

/// An object of a day: rows as gzipped JSON Lines, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Name in the day's folder.
    pub name: String,
    /// Table of the rows.
    pub table: Table,
    /// Number of rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Size before the compression.
    pub raw_bytes: u64,
    /// SHA-256 of the object, in hexadecimal digits.
    pub sha256: String,
    /// Key of the first row. The parts of a key have a fixed width, so that keys sort as texts.
    pub first: String,
    /// Key of the last row.
    pub last: String,
}

impl ObjectEntry {
    /// True if the object may hold a key from `low` to `high`. Both bounds may be beginnings of keys.
    pub(crate) fn may_hold(&self, low: &str, high: &str) -> bool {
        let beginning = &self.first.as_bytes()[..self.first.len().min(high.len())];
        self.last.as_str() >= low && beginning <= high.as_bytes()
    }
}

impl Manifest {
    /// Rows of a table.
    pub fn rows(&self, table: Table) -> u64 {
        self.of(table).map(|object| object.rows).sum()
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }

    /// First and last key of a table; `None` without rows.
    pub fn range(&self, table: Table) -> Option<(&str, &str)> {
        Some((self.of(table).next()?.first.as_str(), self.of(table).last()?.last.as_str()))
    }

    pub(crate) fn of(&self, table: Table) -> impl Iterator<Item = &ObjectEntry> {
        self.objects.iter().filter(move |object| object.table == table)
    }
}

impl Archive {
    /// Reads the manifest of a day; `None` if the day is not complete.
    ///
    /// # Errors
    /// If the manifest cannot be read, or has another format.
    pub async fn manifest(&self, day: Date) -> Result<Option<Manifest>, ArchiveError> {
        let path = self.folder(day).join(NAME);
        let read = self.act("read", &path, async { self.store.get(&path).await?.bytes().await }).await;
        match read {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(ArchiveError::Storage { cause: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, ArchiveError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |error: serde_json::Error| ArchiveError::Damaged { path: path.to_string(), fault: error.to_string() };
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(ArchiveError::Format { path: path.to_string(), format, known: FORMAT });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}
