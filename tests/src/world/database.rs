//! The databases of the tests: copies of a template that has the schema.

use std::{collections::HashMap, fs, path::Path, sync::LazyLock};

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, error::SqlState};

use crate::{
    patience::until,
    servers::instance::Servers,
    world::{process::Variables, release::Release},
};

/// Views over deliveries and attempts in all tables.
const VIEWS: &str = "
CREATE OR REPLACE VIEW all_deliveries AS
SELECT id, delivery_accepted_at(id) AS accepted_at, event_id, application_id, endpoint_id, state, reason, attempt, failures,
       replay_id, due_at, expires_at
FROM open_deliveries
UNION ALL
SELECT id, delivery_accepted_at(id), event_id, application_id, endpoint_id, state, reason, attempt, failures, replay_id,
       NULL, NULL
FROM deliveries d WHERE NOT EXISTS (SELECT FROM open_deliveries o WHERE o.id = d.id);
CREATE OR REPLACE VIEW all_attempts AS
SELECT delivery_id, attempt, delivery_accepted_at(delivery_id) AS accepted_at, endpoint_id, started_at, outcome, status, error
FROM attempts
UNION ALL
SELECT id, 1, delivery_accepted_at(id), endpoint_id, started_at, 'answered', status, NULL
FROM deliveries WHERE started_at IS NOT NULL";

/// The template of each server and release, by the server's URL.
static TEMPLATES: LazyLock<Mutex<HashMap<(String, Release), String>>> = LazyLock::new(Mutex::default);

/// Creates a database with the schema of a release. Returns its URL.
///
/// # Panics
/// If the database's user must not create databases.
pub async fn create(servers: &Servers, name: &str, release: &Release) -> String {
    let url = &servers.database_url;
    let mut templates = TEMPLATES.lock().await;
    let key = (url.clone(), release.clone());
    let template = match templates.get(&key) {
        Some(template) => template.clone(),
        None => {
            let template = create_template(servers, release).await;
            templates.insert(key, template.clone());
            template
        }
    };
    drop(templates);
    let client = connect(url).await.expect("the database answers");
    // The sessions that made the template end shortly after their clients.
    let copy = format!("CREATE DATABASE {name} TEMPLATE {template}");
    until("the template to be free", async || match client.batch_execute(&copy).await {
        Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => None,
        copied => {
            copied.expect("the database's user may create databases");
            Some(())
        }
    })
    .await;
    of_name(url, name)
}

/// Creates the template of a server, unless an earlier run left one with the same schema. A run that was killed leaves
/// an incomplete template: `migrate` and the views complete the schema.
async fn create_template(servers: &Servers, release: &Release) -> String {
    let mut digest = Sha256::new().chain_update(VIEWS);
    if *release == Release::present() {
        digest.update(migrations());
    } else {
        digest.update(release.program("fanfare").to_string_lossy().as_bytes());
    }
    let digest = digest.finalize();
    let name = format!("fanfare_template_{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
    let client = connect(&servers.database_url).await.expect("the database answers");
    let exists = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await.expect("an answer");
    if exists.is_none() {
        let create = format!("CREATE DATABASE {name}");
        client.batch_execute(&create).await.expect("the database's user may create databases");
    }
    let url = of_name(&servers.database_url, &name);
    release.fanfare(&Variables::from([("DATABASE_URL".to_owned(), url.clone())]), &["migrate"]);
    let client = connect(&url).await.expect("the template answers");
    client.batch_execute(VIEWS).await.expect("the views");
    name
}

/// The migrations of this release, in their order.
fn migrations() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/store/migrations");
    let files = fs::read_dir(folder).expect("the migrations").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "sql")).collect();
    files.sort();
    files.iter().flat_map(|path| fs::read(path).expect("a migration")).collect()
}

/// Connects to a database.
///
/// # Errors
/// If the database is away, or refuses the user.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The URL of another database of the same server.
fn of_name(url: &str, name: &str) -> String {
    let (start, end) = url.rsplit_once('/').expect("the database's URL ends with its name");
    let parameters = end.split_once('?').map(|(_, parameters)| format!("?{parameters}")).unwrap_or_default();
    format!("{start}/{name}{parameters}")
}
