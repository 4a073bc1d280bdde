//! The archive's URL, and the object storage behind the URL.

use std::{
    fmt,
    path::{Path as FilePath, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use jiff::civil::Date;
use object_store::{
    ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutPayload, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use tokio::time::timeout;
use url::Url;

use crate::{ArchiveError, ProbeError, connector::Connector};

/// Repeats of a request that failed, and the time after which no repeat begins. The job runs again anyway.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Deadline of an action with its repeats.
const ACTION_TIMEOUT: Duration = Duration::from_secs(300);

/// URL of the archive: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveUrl {
    url: Url,
    kind: Kind,
    /// Path of all objects, below the bucket or the folder.
    prefix: Path,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    S3,
    Google,
    Azure,
    Folder(PathBuf),
}

/// A text that is no URL of an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder")]
pub struct InvalidArchiveUrl;

impl FromStr for ArchiveUrl {
    type Err = InvalidArchiveUrl;

    fn from_str(text: &str) -> Result<Self, InvalidArchiveUrl> {
        let url: Url = text.parse().map_err(|_| InvalidArchiveUrl)?;
        // A secret does not belong in a URL, and a query would be ignored.
        let is_bare = url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| InvalidArchiveUrl)?;
        let kind = match (scheme, url.scheme()) {
            (ObjectStoreScheme::AmazonS3, "s3") => Kind::S3,
            (ObjectStoreScheme::GoogleCloudStorage, "gs") => Kind::Google,
            (ObjectStoreScheme::MicrosoftAzure, "az") => Kind::Azure,
            (ObjectStoreScheme::Local, "file") => Kind::Folder(url.to_file_path().map_err(|()| InvalidArchiveUrl)?),
            _ => return Err(InvalidArchiveUrl),
        };
        let prefix = if matches!(kind, Kind::Folder(_)) { Path::default() } else { prefix };
        if is_bare { Ok(Self { url, kind, prefix }) } else { Err(InvalidArchiveUrl) }
    }
}

impl fmt::Display for ArchiveUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(formatter)
    }
}

/// An archive in object storage. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    pub(crate) store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Archive {
    /// Opens the archive, without a request. Credentials come from the usual variables of the clouds: `AWS_…`,
    /// `GOOGLE_…`, `AZURE_…`. Certificates in `extra_roots` (PEM) are trusted in addition to the system's.
    ///
    /// # Errors
    /// If a variable is wrong, a certificate cannot be used, or the folder does not exist.
    pub fn open(url: &ArchiveUrl, extra_roots: Option<&FilePath>) -> Result<Self, ArchiveError> {
        let mut roots = fanfare_tls::system_roots();
        if let Some(path) = extra_roots {
            fanfare_tls::add_roots(&mut roots, path)?;
        }
        let connector = Connector { tls: Arc::new(fanfare_tls::client_config(roots)?) };
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let text = url.url.as_str();
        let store: object_store::Result<Arc<dyn ObjectStore>> = match &url.kind {
            Kind::S3 => {
                let builder = AmazonS3Builder::from_env().with_url(text).with_retry(retry);
                builder.with_http_connector(connector).build().map(|store| Arc::new(store) as _)
            }
            Kind::Google => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(text).with_retry(retry);
                builder.with_http_connector(connector).build().map(|store| Arc::new(store) as _)
            }
            Kind::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(text).with_retry(retry);
                builder.with_http_connector(connector).build().map(|store| Arc::new(store) as _)
            }
            // The database drops a day after the write: the write must be on the disk.
            Kind::Folder(folder) => {
                LocalFileSystem::new_with_prefix(folder).map(|store| Arc::new(store.with_fsync(true)) as _)
            }
        };
        Ok(Self { store: store.map_err(ArchiveError::Settings)?, prefix: url.prefix.clone() })
    }

    /// Folder of all days.
    pub(crate) fn root(&self) -> &Path {
        &self.prefix
    }

    /// Folder of a day.
    pub(crate) fn folder(&self, day: Date) -> Path {
        self.prefix.clone().join(day.to_string())
    }

    /// Runs an action on an object with a deadline.
    pub(crate) async fn act<T>(
        &self,
        action: &'static str,
        path: &Path,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, ArchiveError> {
        let path = || path.to_string();
        match timeout(ACTION_TIMEOUT, work).await {
            Ok(done) => done.map_err(|cause| ArchiveError::Storage { action, path: path(), cause }),
            Err(_) => Err(ArchiveError::TimedOut { action, path: path(), limit: ACTION_TIMEOUT }),
        }
    }

    /// Lists the days, and creates, reads and deletes a small object.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        self.days().await?;
        let content = format!("fanfare doctor {:032x}", rand::random::<u128>());
        let path = self.prefix.clone().join(content.replace(' ', "-"));
        let create = || self.store.put_opts(&path, PutPayload::from(content.clone()), PutMode::Create.into());
        self.act("write", &path, create()).await?;
        let again = self.act("write", &path, create()).await;
        let read = self.act("read", &path, async { self.store.get(&path).await?.bytes().await }).await;
        self.act("delete", &path, self.store.delete(&path)).await?;
        if !matches!(again, Err(ArchiveError::Storage { cause: object_store::Error::AlreadyExists { .. }, .. })) {
            return Err(ProbeError::Replaced(path.to_string()));
        }
        if read? == content.as_bytes() { Ok(()) } else { Err(ProbeError::Changed(path.to_string())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_bucket_and_prefix() {
        for (text, prefix) in [
            ("s3://bucket", ""),
            ("s3://bucket/fanfare/production/", "fanfare/production"),
            ("gs://bucket/a", "a"),
            ("az://container/a/b", "a/b"),
            ("file:///var/archive", ""),
        ] {
            let url: ArchiveUrl = text.parse().expect("a URL");
            assert_eq!(url.prefix.as_ref(), prefix, "{text}");
        }
        for text in
            ["", "bucket", "http://host/bucket", "memory:///", "s3://key:secret@bucket/a", "s3://b/a?x=1", "s3a://b"]
        {
            assert_eq!(text.parse::<ArchiveUrl>(), Err(InvalidArchiveUrl), "{text}");
        }
    }

    #[test]
    fn a_folder_must_exist() {
        let url = "file:///nowhere/archive".parse().expect("a URL");
        assert!(matches!(Archive::open(&url, None), Err(ArchiveError::Settings(_))));
    }
}
