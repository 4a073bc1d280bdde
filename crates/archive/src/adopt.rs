//! Objects of a day that its manifest names, and objects of other writers.

use std::collections::HashMap;

use jiff::civil::Date;
use object_store::{ObjectStoreExt, path::Path};
use uuid::Uuid;

use crate::{Archive, ArchiveError, Manifest, Table};

impl Archive {
    /// Takes a manifest for the day's archive, and deletes the objects of other writers.
    ///
    /// # Errors
    /// If another deployment wrote the day, or an object is missing.
    pub async fn adopt(&self, manifest: Manifest, deployment: Uuid) -> Result<Manifest, ArchiveError> {
        if manifest.deployment != deployment {
            return Err(ArchiveError::OtherDeployment { path: self.folder(manifest.day).to_string() });
        }
        self.check_listed(&manifest).await?;
        self.delete_strays(&manifest).await?;
        Ok(manifest)
    }

    /// Compares the sizes of all objects with the list of the object storage.
    pub(crate) async fn check_listed(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let sizes: HashMap<Path, u64> = self.listed(manifest.day).await?.into_iter().collect();
        for object in &manifest.objects {
            let path = self.folder(manifest.day).join(object.name.as_str());
            if sizes.get(&path) != Some(&object.bytes) {
                let fault = format!("the object storage does not list the {} bytes that were written", object.bytes);
                return Err(ArchiveError::Damaged { path: path.to_string(), fault });
            }
        }
        Ok(())
    }

    /// Deletes objects of the day that the manifest does not name, and whose names a writer gave.
    async fn delete_strays(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        for (path, _) in self.listed(manifest.day).await? {
            let name = path.filename().unwrap_or_default();
            if is_of_a_writer(name) && manifest.objects.iter().all(|object| object.name != name) {
                self.act("delete", &path, self.store.delete(&path)).await?;
            }
        }
        Ok(())
    }

    /// Paths and sizes of the objects in the folder of a day.
    pub(crate) async fn listed(&self, day: Date) -> Result<Vec<(Path, u64)>, ArchiveError> {
        let folder = self.folder(day);
        let listed = self.act("list", &folder, self.store.list_with_delimiter(Some(&folder))).await?;
        Ok(listed.objects.into_iter().map(|found| (found.location, found.size)).collect())
    }
}

/// True for names in the form `events-0123abcd-0001.jsonl.gz`.
pub(crate) fn is_of_a_writer(name: &str) -> bool {
    let Some((table, rest)) = name.split_once('-') else { return false };
    let Some((run, number)) = rest.strip_suffix(".jsonl.gz").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    Table::ALL.iter().any(|known| known.name() == table)
        && run.len() == 8
        && run.bytes().all(|byte| byte.is_ascii_hexdigit())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}
