//! Days, rows and checks.

use std::{io::Write, mem, time::Duration};

use flate2::write::GzDecoder;
use futures_util::StreamExt;
use jiff::civil::Date;
use object_store::{ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::{Archive, ArchiveError, ObjectEntry, writer::hexadecimal};

/// Longest wait for the next bytes of an object.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

impl Archive {
    /// Lists the days, oldest first, complete or not. Ignores other folders and objects.
    ///
    /// # Errors
    /// If the object storage does not list the objects.
    pub async fn days(&self) -> Result<Vec<Date>, ArchiveError> {
        let root = self.root();
        let listed = self.act("list", root, self.store.list_with_delimiter(Some(root))).await?;
        let days = listed.common_prefixes.iter().filter_map(|folder| folder.filename()?.parse().ok());
        let mut days: Vec<Date> = days.collect();
        days.sort_unstable();
        Ok(days)
    }

    /// Recomputes the digest of an object.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if the object differs from the manifest; other errors if it cannot be read.
    pub async fn check(&self, day: Date, object: &ObjectEntry) -> Result<(), ArchiveError> {
        let path = self.folder(day).join(object.name.as_str());
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        self.read(&path, |chunk| {
            digest.update(chunk);
            bytes += chunk.len() as u64;
            Ok(())
        })
        .await?;
        let found = hexadecimal(&digest.finalize());
        if (bytes, found.as_str()) == (object.bytes, object.sha256.as_str()) {
            return Ok(());
        }
        let fault = format!(
            "{bytes} bytes with the SHA-256 {found}, and the manifest names {} bytes with {}",
            object.bytes, object.sha256
        );
        Err(ArchiveError::Damaged { path: path.to_string(), fault })
    }

    /// Lines of an object that `keep` chooses. Holds no other line in memory.
    pub(crate) async fn lines(
        &self,
        day: Date,
        object: &ObjectEntry,
        keep: impl Fn(&[u8]) -> bool + Send,
    ) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let path = self.folder(day).join(object.name.as_str());
        let mut gzip = GzDecoder::new(Lines { keep, line: Vec::new(), kept: Vec::new() });
        self.read(&path, |chunk| gzip.write_all(chunk)).await?;
        match gzip.finish() {
            Ok(lines) => Ok(lines.kept),
            Err(error) => Err(ArchiveError::Damaged { path: path.to_string(), fault: error.to_string() }),
        }
    }

    /// Reads an object in chunks.
    async fn read(&self, path: &Path, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), ArchiveError> {
        let storage = |cause| ArchiveError::Storage { action: "read", path: path.to_string(), cause };
        let mut chunks = self.act("read", path, self.store.get(path)).await?.into_stream();
        loop {
            let next = timeout(READ_TIMEOUT, chunks.next()).await;
            let next = next.map_err(|_| ArchiveError::TimedOut {
                action: "read",
                path: path.to_string(),
                limit: READ_TIMEOUT,
            })?;
            let Some(chunk) = next.transpose().map_err(storage)? else { return Ok(()) };
            take(&chunk).map_err(|error| ArchiveError::Damaged { path: path.to_string(), fault: error.to_string() })?;
        }
    }
}

/// Splits decompressed bytes into lines, and keeps chosen lines.
struct Lines<K> {
    keep: K,
    line: Vec<u8>,
    kept: Vec<Vec<u8>>,
}

impl<K: Fn(&[u8]) -> bool> Write for Lines<K> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            if (self.keep)(&self.line) {
                self.kept.push(mem::take(&mut self.line));
            }
            self.line.clear();
            rest = &rest[end + 1..];
        }
        self.line.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
