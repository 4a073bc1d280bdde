//! Temporary folders.

use std::{fs, path::PathBuf};

/// A temporary folder, removed on drop.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Creates a folder whose name contains `name`.
    ///
    /// # Panics
    /// If the folder cannot be created.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fanfare-{name}-{:032x}", rand::random::<u128>()));
        fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    /// Writes a file. Returns the path.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> String {
        let file = self.0.join(name);
        fs::write(&file, text).expect("a file");
        file.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
