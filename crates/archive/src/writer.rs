//! Rows into compressed objects of bounded size.

use std::{fmt::Write as _, io::Write as _, mem};

use flate2::{Compression, write::GzEncoder};
use jiff::{Timestamp, civil::Date};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::{
    Archive, ArchiveError, Manifest, ObjectEntry, Table,
    adopt::is_of_a_writer,
    manifest::{FORMAT, NAME},
};

/// Bounds of an object, before the compression. An object is in memory until it is written.
const LIMITS: Limits = Limits { rows: 100_000, bytes: 32 * 1024 * 1024 };

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Key of the table, in parts of a fixed width.
    pub key: String,
    /// All columns, as a JSON object in a single line.
    pub json: String,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    rows: u64,
    bytes: u64,
}

/// Writes a day. A writer that is dropped leaves objects without a manifest; the next writer of the day deletes them.
pub struct DayWriter<'a> {
    archive: &'a Archive,
    day: Date,
    /// Part of the names of all objects: two writers of a day replace no object of each other.
    run: String,
    limits: Limits,
    open: Option<OpenObject>,
    objects: Vec<ObjectEntry>,
}

/// An object that is being compressed.
struct OpenObject {
    table: Table,
    gzip: GzEncoder<Vec<u8>>,
    rows: u64,
    raw_bytes: u64,
    first: String,
    last: String,
}

impl Archive {
    /// Begins to write a day.
    pub fn write_day(&self, day: Date) -> DayWriter<'_> {
        let run = format!("{:08x}", rand::random::<u32>());
        DayWriter { archive: self, day, run, limits: LIMITS, open: None, objects: Vec::new() }
    }
}

impl DayWriter<'_> {
    /// Appends rows of a table, sorted by key. Rows of a table follow each other. Writes each full object.
    ///
    /// # Errors
    /// If an object cannot be written.
    pub async fn append(&mut self, table: Table, rows: Vec<Row>) -> Result<(), ArchiveError> {
        if self.open.as_ref().is_some_and(|open| open.table != table) {
            self.close().await?;
        }
        let mut rows = rows;
        while !rows.is_empty() {
            let open = self.open.take().unwrap_or_else(|| OpenObject::new(table));
            let rest = rows.split_off(open.room(&rows, self.limits));
            // Compression would hold up all other tasks of the thread.
            let open = joined(spawn_blocking(move || open.with(rows)).await);
            let is_full = open.is_full(self.limits);
            self.open = Some(open);
            if is_full {
                self.close().await?;
            }
            rows = rest;
        }
        Ok(())
    }

    /// Writes the last object and the manifest, and deletes the objects of interrupted writers. If another writer of
    /// the deployment was quicker, its manifest counts.
    ///
    /// # Errors
    /// If the object storage fails, lacks an object that was written, or has the day of another deployment. The day is
    /// then not archived.
    pub async fn finish(
        &mut self,
        written_at: Timestamp,
        schema: i64,
        deployment: Uuid,
    ) -> Result<Manifest, ArchiveError> {
        self.close().await?;
        let (archive, day) = (self.archive, self.day);
        // A quicker writer has deleted objects of this one.
        if let Some(other) = archive.manifest(day).await? {
            return archive.adopt(other, deployment).await;
        }
        let manifest =
            Manifest { format: FORMAT, deployment, day, written_at, schema, objects: mem::take(&mut self.objects) };
        archive.check_listed(&manifest).await?;
        let path = archive.folder(day).join(NAME);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| ArchiveError::Damaged { path: path.to_string(), fault: error.to_string() })?;
        let create = PutOptions::from(PutMode::Create);
        match archive.act("write", &path, archive.store.put_opts(&path, PutPayload::from(text), create)).await {
            Ok(_) | Err(ArchiveError::Storage { cause: object_store::Error::AlreadyExists { .. }, .. }) => {}
            Err(error) => return Err(error),
        }
        // The manifest that is there counts, also on a server that replaces objects in spite of the condition.
        let lost =
            || ArchiveError::Damaged { path: path.to_string(), fault: "it was written, and is missing".to_owned() };
        archive.adopt(archive.manifest(day).await?.ok_or_else(lost)?, deployment).await
    }

    /// Deletes all objects of this writer, as far as the object storage answers: a day that fails at each try must not
    /// fill the bucket.
    pub async fn discard(self) {
        let run = format!("-{}-", self.run);
        for (path, _) in self.archive.listed(self.day).await.unwrap_or_default() {
            if path.filename().is_some_and(|name| is_of_a_writer(name) && name.contains(&run)) {
                let _ = self.archive.act("delete", &path, self.archive.store.delete(&path)).await;
            }
        }
    }

    /// Writes the open object. A single request: an interrupted write leaves no part that costs and is not listed.
    async fn close(&mut self) -> Result<(), ArchiveError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let number = self.objects.iter().filter(|object| object.table == open.table).count() + 1;
        let name = format!("{}-{}-{number:04}.jsonl.gz", open.table, self.run);
        let (entry, content) = joined(spawn_blocking(move || open.finish(name)).await);
        let path = self.archive.folder(self.day).join(entry.name.as_str());
        self.archive.act("write", &path, self.archive.store.put(&path, PutPayload::from(content))).await?;
        self.objects.push(entry);
        Ok(())
    }
}

impl OpenObject {
    fn new(table: Table) -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::default());
        Self { table, gzip, rows: 0, raw_bytes: 0, first: String::new(), last: String::new() }
    }

    fn is_full(&self, limits: Limits) -> bool {
        self.rows >= limits.rows || self.raw_bytes >= limits.bytes
    }

    /// Number of rows that fill the object: at least one.
    fn room(&self, rows: &[Row], limits: Limits) -> usize {
        let mut bytes = self.raw_bytes;
        let by_bytes = rows.iter().position(|row| {
            bytes += row.json.len() as u64 + 1;
            bytes >= limits.bytes
        });
        let by_rows = usize::try_from(limits.rows.saturating_sub(self.rows)).unwrap_or(usize::MAX).max(1);
        by_bytes.map_or(rows.len(), |last| last + 1).min(by_rows)
    }

    fn with(mut self, rows: Vec<Row>) -> Self {
        for row in rows {
            for part in [row.json.as_bytes(), b"\n"] {
                self.gzip.write_all(part).expect("a write into memory succeeds");
            }
            self.raw_bytes += row.json.len() as u64 + 1;
            self.rows += 1;
            if self.rows == 1 {
                self.first.clone_from(&row.key);
            }
            self.last = row.key;
        }
        self
    }

    fn finish(mut self, name: String) -> (ObjectEntry, Vec<u8>) {
        let content = self.gzip.finish().expect("a write into memory succeeds");
        let entry = ObjectEntry {
            name,
            table: self.table,
            rows: self.rows,
            bytes: content.len() as u64,
            raw_bytes: self.raw_bytes,
            sha256: hexadecimal(&Sha256::digest(&content)),
            first: mem::take(&mut self.first),
            last: mem::take(&mut self.last),
        };
        (entry, content)
    }
}

/// Hexadecimal digits of a digest.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Result of a blocking task, which is never cancelled.
fn joined<T>(done: Result<T, tokio::task::JoinError>) -> T {
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// A folder of a test, removed on drop.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("fanfare-archive-{:032x}", rand::random::<u128>()));
            fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn archive(&self) -> Archive {
            let url = format!("file://{}", self.0.display()).parse().expect("a URL");
            Archive::open(&url, None).expect("an archive")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.0.join("2026-10-26")).expect("the day's folder");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
            names.sort_unstable();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the folder is removed");
        }
    }

    const DAY: Date = jiff::civil::date(2026, 10, 26);
    const DEPLOYMENT: Uuid = Uuid::from_u128(1);

    fn rows(numbers: std::ops::Range<u32>) -> Vec<Row> {
        let row = |n| Row { key: format!("{n:04}"), json: format!(r#"{{"id":{n},"body":"a body, \"quoted\""}}"#) };
        numbers.map(row).collect()
    }

    /// Writes 10 events in pages of 4, and 3 attempts, into objects of 3 rows.
    async fn write(archive: &Archive) -> Manifest {
        let mut writer = archive.write_day(DAY);
        writer.limits.rows = 3;
        for page in [0..4, 4..8, 8..10] {
            writer.append(Table::Events, rows(page)).await.expect("written");
        }
        writer.append(Table::Attempts, rows(0..3)).await.expect("written");
        writer.finish(Timestamp::UNIX_EPOCH, 7, DEPLOYMENT).await.expect("a manifest")
    }

    #[tokio::test]
    async fn rows_become_objects_with_ranges() {
        let folder = Folder::new();
        let archive = folder.archive();
        let manifest = write(&archive).await;
        let ranges: Vec<_> = manifest
            .objects
            .iter()
            .map(|object| {
                assert!(is_of_a_writer(&object.name), "{}", object.name);
                let number = &object.name[object.name.len() - "0001.jsonl.gz".len()..];
                (object.table, number, object.rows, object.first.as_str(), object.last.as_str())
            })
            .collect();
        assert_eq!(
            ranges,
            [
                (Table::Events, "0001.jsonl.gz", 3, "0000", "0002"),
                (Table::Events, "0002.jsonl.gz", 3, "0003", "0005"),
                (Table::Events, "0003.jsonl.gz", 3, "0006", "0008"),
                (Table::Events, "0004.jsonl.gz", 1, "0009", "0009"),
                (Table::Attempts, "0001.jsonl.gz", 3, "0000", "0002"),
            ]
        );
        assert_eq!((manifest.rows(Table::Events), manifest.rows(Table::Deliveries)), (10, 0));
        assert_eq!(manifest.range(Table::Events), Some(("0000", "0009")));
        assert_eq!(archive.manifest(DAY).await.expect("a look"), Some(manifest.clone()));
        assert_eq!(archive.days().await.expect("a list"), [DAY]);
        for object in &manifest.objects {
            archive.check(DAY, object).await.expect("an unchanged object");
        }
        let lines = archive.lines(DAY, &manifest.objects[1], |_| true).await.expect("lines");
        let expected: Vec<Vec<u8>> = rows(3..6).into_iter().map(|row| row.json.into_bytes()).collect();
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn large_rows_end_an_object() {
        let folder = Folder::new();
        let archive = folder.archive();
        let mut writer = archive.write_day(DAY);
        writer.limits.bytes = 60;
        writer.append(Table::Events, rows(0..5)).await.expect("written");
        let manifest = writer.finish(Timestamp::UNIX_EPOCH, 7, DEPLOYMENT).await.expect("a manifest");
        let rows: Vec<u64> = manifest.objects.iter().map(|object| object.rows).collect();
        assert_eq!(rows, [2, 2, 1]);
    }

    #[tokio::test]
    async fn an_interrupted_day_is_incomplete_and_replaced() {
        let folder = Folder::new();
        let archive = folder.archive();
        let mut interrupted = archive.write_day(DAY);
        interrupted.limits.rows = 1;
        interrupted.append(Table::Events, rows(0..6)).await.expect("written");
        drop(interrupted);
        assert_eq!(folder.names().len(), 6);
        assert_eq!(archive.manifest(DAY).await.expect("a look"), None);
        assert_eq!(archive.days().await.expect("a list"), [DAY]);
        let manifest = write(&archive).await;
        let mut names: Vec<_> = manifest.objects.iter().map(|object| object.name.clone()).collect();
        names.push(NAME.to_owned());
        names.sort_unstable();
        assert_eq!(folder.names(), names, "the six objects are deleted");
        assert_eq!(archive.lines(DAY, &manifest.objects[0], |_| true).await.expect("lines").len(), 3);
    }

    #[tokio::test]
    async fn a_discarded_writer_leaves_nothing() {
        let folder = Folder::new();
        let archive = folder.archive();
        let manifest = write(&archive).await;
        let mut writer = archive.write_day(DAY);
        writer.limits.rows = 1;
        writer.append(Table::Events, rows(0..6)).await.expect("written");
        writer.discard().await;
        assert_eq!(folder.names().len(), manifest.objects.len() + 1);
    }

    #[tokio::test]
    async fn the_first_manifest_counts() {
        let folder = Folder::new();
        let archive = folder.archive();
        let begin = async || {
            let mut writer = archive.write_day(DAY);
            writer.limits.rows = 1;
            writer.append(Table::Events, rows(0..2)).await.expect("written");
            writer
        };
        let [mut first, mut second, mut foreign] = [begin().await, begin().await, begin().await];
        fs::write(folder.0.join("2026-10-26/events.csv"), "of another program").expect("a file");
        let manifest = first.finish(Timestamp::UNIX_EPOCH, 7, DEPLOYMENT).await.expect("a manifest");
        let adopted = second.finish(Timestamp::UNIX_EPOCH, 8, DEPLOYMENT).await.expect("the first manifest");
        assert_eq!(adopted, manifest);
        let other = Uuid::from_u128(2);
        let error = foreign.finish(Timestamp::UNIX_EPOCH, 7, other).await.expect_err("the day of another deployment");
        assert!(matches!(error, ArchiveError::OtherDeployment { .. }), "{error}");
        foreign.discard().await;
        assert_eq!(archive.manifest(DAY).await.expect("a look"), Some(manifest.clone()));
        archive.check(DAY, &manifest.objects[0]).await.expect("an unchanged object");
        assert!(folder.names().contains(&"events.csv".to_owned()), "a foreign object stays");
        fs::remove_file(folder.0.join("2026-10-26").join(&manifest.objects[0].name)).expect("a loss");
        let error = archive.adopt(manifest, DEPLOYMENT).await.expect_err("a lost object");
        assert!(matches!(error, ArchiveError::Damaged { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_changed_or_lost_object_is_found() {
        let folder = Folder::new();
        let archive = folder.archive();
        let manifest = write(&archive).await;
        let path = |object: &ObjectEntry| folder.0.join("2026-10-26").join(&object.name);
        let mut content = fs::read(path(&manifest.objects[0])).expect("an object");
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(path(&manifest.objects[0]), content).expect("a change");
        let error = archive.check(DAY, &manifest.objects[0]).await.expect_err("a changed object");
        assert!(matches!(error, ArchiveError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("-0001.jsonl.gz is damaged: "), "{error}");
        let content = fs::read(path(&manifest.objects[1])).expect("an object");
        fs::write(path(&manifest.objects[1]), &content[..content.len() - 9]).expect("a change");
        let error = archive.lines(DAY, &manifest.objects[1], |_| true).await.expect_err("a cut object");
        assert!(matches!(error, ArchiveError::Damaged { .. }), "{error}");
        fs::remove_file(path(&manifest.objects[2])).expect("a loss");
        let error = archive.check(DAY, &manifest.objects[2]).await.expect_err("a lost object");
        assert!(matches!(error, ArchiveError::Storage { action: "read", .. }), "{error}");
    }

    #[tokio::test]
    async fn another_format_is_refused() {
        let folder = Folder::new();
        let archive = folder.archive();
        write(&archive).await;
        let path = folder.0.join("2026-10-26").join(NAME);
        fs::write(&path, r#"{"format": 2, "days": []}"#).expect("a change");
        let error = archive.manifest(DAY).await.expect_err("another format");
        assert!(matches!(error, ArchiveError::Format { format: 2, known: 1, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_probe_leaves_nothing() {
        let folder = Folder::new();
        folder.archive().probe().await.expect("a working archive");
        assert_eq!(fs::read_dir(&folder.0).expect("the folder").count(), 0);
    }
}
