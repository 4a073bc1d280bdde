//! A small disk for a single server, which a test can fill.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use fanfare_tests::servers::instance::Instance;

/// Several times the bytes written by a server in a run.
const SIZE: &str = "size=400m";

/// The name of the file on a full disk.
const FILLER: &str = "filler";

/// Whether a disk can be mounted: mounting takes root, and in a container further rights.
pub(crate) static CAN_BE_HAD: LazyLock<bool> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("fanfare-disk-{}", std::process::id()));
    let is_had = fs::create_dir_all(&folder).is_ok() && mounted(&folder);
    let _ = Command::new("umount").arg(&folder).output();
    let _ = fs::remove_dir(&folder);
    is_had
});

/// Whether the data of a server lie on such a disk.
pub(crate) fn has_one(server: &Instance) -> bool {
    let disk = disk(server);
    let device = |folder: &Path| fs::metadata(folder).expect("a folder").dev();
    device(&disk) != device(disk.parent().expect("a disk lies in a folder"))
}

/// Moves the data of a stopped server to a new disk, which is removed with the server.
pub(crate) fn move_to_disk(server: &Instance) {
    let disk = disk(server);
    let aside = disk.with_extension("aside");
    copy(&disk, &aside);
    assert!(mounted(&disk), "no disk for {}", disk.display());
    // With owners and modes, those of the folder itself, too.
    copy(&aside.join("."), &disk);
    fs::remove_dir_all(&aside).expect("the copy goes");
}

/// Fills the disk to the last byte.
pub(crate) fn fill(server: &Instance) {
    let mut filler = File::create(disk(server).join(FILLER)).expect("a file");
    let zeros = vec![0; 64 * 1024];
    let mut size = zeros.len();
    while size > 0 {
        match filler.write(&zeros[..size]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => panic!("the disk cannot be filled: {error}"),
        }
    }
}

/// Removes the filler.
pub(crate) fn free(server: &Instance) {
    fs::remove_file(disk(server).join(FILLER)).expect("the filler goes");
}

fn disk(server: &Instance) -> PathBuf {
    server.data().parent().expect("the data lie in a folder").to_owned()
}

fn mounted(at: &Path) -> bool {
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "fanfare"]).arg(at).output();
    mount.is_ok_and(|output| output.status.success())
}

/// Copies a folder with owners and modes, on which both servers insist.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp {} {}", from.display(), to.display());
}
