//! The services' copy of the configuration.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    access::api_key::{Role, Token},
    application::Application,
    dialect::Dialects,
    ids::{ApplicationId, KeyId},
};
use fanfare_store::Directory;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::database::{APPLICATION, Database, endpoint};

fn token(number: u8) -> Token {
    Token::from_random(KeyId(Uuid::from_u128(number.into())), [number; 32])
}

/// Follows the database until the guard's drop. The first poll is over, and the next comes after ten seconds.
async fn followed(database: &Database) -> (Directory, DropGuard) {
    let stop = CancellationToken::new();
    let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
    let directory = Directory::follow(database.another_store(), dialects, stop.clone()).await;
    directory.changes().changed().await.expect("the first poll");
    (directory, stop.drop_guard())
}

#[tokio::test]
async fn keys_and_names_are_found_by_their_ids() {
    let database = Database::new().await;
    let new = token(1);
    let key = database.store.create_key(&new, Role::Manage, Some(APPLICATION), None).await.expect("a key");
    let found = database.store.key(key.id).await.expect("a look").expect("the key");
    assert_eq!((found.id, found.application, found.revoked_at), (key.id, Some(APPLICATION), None));
    assert!(database.store.key(KeyId(Uuid::from_u128(2))).await.expect("a look").is_none());

    let names = |only| {
        let store = database.store.clone();
        async move { store.names(only, &[APPLICATION], &[endpoint(1)]).await.expect("names") }
    };
    let all = names(None).await;
    assert_eq!((all.applications.len(), all.endpoints.len()), (1, 1));
    assert_eq!(names(Some(APPLICATION)).await, all, "the application's own");
    let other = names(Some(ApplicationId(Uuid::from_u128(99)))).await;
    assert_eq!((other.applications.len(), other.endpoints.len()), (0, 0), "another application learns nothing");
}

#[tokio::test]
async fn a_new_key_works_before_its_notice_comes() {
    let database = Database::fresh().await;
    let (directory, _stop) = followed(&database).await;
    // No notice reports the key.
    database
        .run(
            "CREATE OR REPLACE FUNCTION announce_keys() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN UPDATE key_version SET version = version + 1; RETURN NULL; END $$",
        )
        .await;
    let new = token(1);
    database.store.create_key(&new, Role::Manage, Some(APPLICATION), None).await.expect("a key");
    let text = new.reveal();
    assert!(directory.authenticate(&text).is_none(), "the copy is older than the key");
    directory.look_for_key("fanfare_no_key").await;
    assert!(directory.authenticate(&text).is_none(), "no look for a text without the form of a key");
    directory.look_for_key(&text).await;
    assert_eq!(directory.authenticate(&text).map(|caller| caller.application), Some(Some(APPLICATION)));

    // A second look within a second is refused: random keys must not load the database.
    let later = token(2);
    database.store.create_key(&later, Role::Manage, Some(APPLICATION), None).await.expect("a key");
    directory.look_for_key(&later.reveal()).await;
    assert!(directory.authenticate(&later.reveal()).is_none());
    for _ in 0..100 {
        directory.look_for_key(&later.reveal()).await;
        if directory.authenticate(&later.reveal()).is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no look for a key after a second");
}

/// Waits until the copy shows a state.
async fn shows<T>(directory: &Directory, state: impl Fn(&Directory) -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(shown) = state(directory) {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the copy does not show the change");
}

#[tokio::test]
async fn a_change_loads_changed_parts_only() {
    let database = Database::fresh().await;
    let (directory, _stop) = followed(&database).await;
    let application = |directory: &Directory| directory.application(APPLICATION).expect("the application");
    let before = application(&directory);
    let [changed, other] = [endpoint(1), endpoint(2)];
    let of = |application: &Application, id| application.endpoint(id).cloned();
    assert!(of(&before, changed).is_some() && of(&before, other).is_some());

    database.run(&format!("UPDATE endpoints SET url = 'https://example.com/new' WHERE id = '{}'", changed.0)).await;
    let after = shows(&directory, |directory| {
        let now = application(directory);
        (of(&now, changed)?.url.path() == "/new").then_some(now)
    })
    .await;
    let same =
        |one: &Application, two: &Application, id| Arc::ptr_eq(&of(one, id).expect("it"), &of(two, id).expect("it"));
    assert!(same(&before, &after, other), "another endpoint is not loaded again");

    database.run(&format!("UPDATE endpoints SET deleted_at = now() WHERE id = '{}'", changed.0)).await;
    let after = shows(&directory, |directory| {
        let now = application(directory);
        of(&now, changed).is_none().then_some(now)
    })
    .await;
    assert!(same(&before, &after, other));

    // Each endpoint uses the application's dialect.
    database
        .run(&format!(
            "UPDATE applications SET dialect = 'standard', version = version + 1 WHERE id = '{}'",
            APPLICATION.0
        ))
        .await;
    let loaded = shows(&directory, |directory| {
        let now = application(directory);
        (of(&now, other)?.dialect.name == "standard").then_some(now)
    })
    .await;
    assert!(loaded.version > after.version && !same(&after, &loaded, other));
    assert_eq!(directory.snapshot().version, loaded.version, "a single application");

    // A database that was restored to an older state.
    let older = format!(
        "ALTER TABLE endpoints DISABLE TRIGGER raise_version;
         UPDATE endpoints SET url = 'https://example.com/old', version = 0 WHERE id = '{}';
         UPDATE applications SET version = 1, settings_version = 0 WHERE id = '{}'",
        other.0, APPLICATION.0
    );
    database.run(&older).await;
    shows(&directory, |directory| (of(&application(directory), other)?.url.path() == "/old").then_some(())).await;
}

/// A change of an endpoint costs the same, however many endpoints the application has.
#[tokio::test]
async fn a_change_reads_no_other_endpoints() {
    const ENDPOINTS: u32 = 20_000;
    const CHANGES: u32 = 20;
    const MOST_PER_CHANGE: i64 = 150;
    let database = Database::fresh().await;
    database.without_autovacuum().await;
    let fill = format!(
        "ALTER TABLE endpoints DISABLE TRIGGER raise_version;
         INSERT INTO endpoints (id, application_id, url, event_types)
         SELECT gen_random_uuid(), '{}', 'https://example.com/' || n, '{{a}}' FROM generate_series(1, {ENDPOINTS}) n;
         ALTER TABLE endpoints ENABLE TRIGGER raise_version",
        APPLICATION.0
    );
    database.run(&fill).await;
    for phase in ["never analyzed", "analyzed"] {
        let mut touched = Vec::new();
        for changes in [0, CHANGES] {
            let follow = async |store| {
                let stop = CancellationToken::new();
                let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
                let directory = Directory::follow(store, dialects, stop.clone()).await;
                for number in 0..changes {
                    let path = format!("/{phase}-{number}").replace(' ', "-");
                    let change = format!(
                        "UPDATE endpoints SET url = 'https://example.com{path}' WHERE id = '{}'",
                        endpoint(1).0
                    );
                    database.run(&change).await;
                    shows(&directory, |directory| {
                        let application = directory.application(APPLICATION)?;
                        (application.endpoint(endpoint(1))?.url.path() == path).then_some(())
                    })
                    .await;
                }
                stop.cancel();
            };
            touched.push(database.measured(follow).await.1.buffers);
        }
        let per_change = (touched[1] - touched[0]) / i64::from(CHANGES);
        assert!(per_change <= MOST_PER_CHANGE, "{phase}: {per_change} buffers");
        database.run("ANALYZE").await;
    }
}
