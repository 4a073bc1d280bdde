//! The evidence of a failed step.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::PoisonError,
};

use fanfare_tests::servers::instance::{Instance, repository};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::{scene::Scene, table::Row};

/// Keeps the ledger, the logs of all processes and the folders of the servers, and kills the servers. Returns the
/// folder.
pub(crate) fn keep(scene: &Scene, run: &str, row: &Row, lines: &[String]) -> PathBuf {
    let folder = repository().join(format!(".dev/chaos/{run}-{}", row.name));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the evidence");
    let about = format!("seed and time: {run}\n{row}\n{}\n\n{}\n", row.notes.join("\n"), row.failures.join("\n"));
    write(&folder.join("faults"), &about);
    write(&folder.join("ledger"), &lines.join("\n"));
    let requests: Vec<String> = scene.world.receiver.all().iter().map(|request| format!("{request:?}")).collect();
    write(&folder.join("requests"), &requests.join("\n"));
    for (name, log) in &scene.logs {
        let log: Vec<String> =
            log.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Value::to_string).collect();
        write(&folder.join(format!("{name}.log")), &log.join("\n"));
    }
    block_in_place(|| {
        for (index, node) in scene.brokers.iter().enumerate() {
            keep_server(node, &folder.join(format!("rabbitmq-{}", index + 1)));
        }
        keep_server(&scene.database, &folder.join("postgres"));
    });
    folder
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the evidence is written");
}

/// Follows links: where PostgreSQL runs as another user, its data lie elsewhere.
fn keep_server(server: &Instance, to: &Path) {
    server.kill();
    let copied = Command::new("cp").args(["--recursive", "--dereference"]).arg(server.folder()).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} cannot be kept", server.folder().display());
}
