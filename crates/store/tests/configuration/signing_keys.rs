//! Ed25519 keys of applications: made once, rotated with overlap, loaded by the services, and re-encrypted.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    application::signing_key::{PublicKey, SigningKey},
    dialect::Dialects,
    ids::ApplicationId,
};
use fanfare_store::{Directory, EndpointSettings, KeyRotation, Store};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{APPLICATION, Database, endpoint, settings};

const HOUR: Duration = Duration::from_secs(3600);
const STRANGER: ApplicationId = ApplicationId(Uuid::from_u128(99));

fn public(seed: u8) -> PublicKey {
    SigningKey::from_seed(&[seed; 32]).public()
}

/// The keys in force, with true for a key that ends.
async fn in_force(store: &Store) -> Vec<(PublicKey, bool)> {
    let keys = store.signing_keys(APPLICATION).await.expect("keys");
    keys.iter().map(|key| (key.public, key.expires_at.is_some())).collect()
}

async fn rotate(store: &Store, seed: u8, overlap: Duration) -> KeyRotation {
    store.rotate_signing_keys(APPLICATION, &[seed; 32], overlap).await.expect("a rotation")
}

#[tokio::test]
async fn a_key_is_made_once_and_rotated_with_overlap() {
    let database = Database::new().await;
    let store = &database.store;
    assert_eq!(in_force(store).await, []);
    let asked = EndpointSettings { is_asymmetric: Some(true), ..EndpointSettings::default() };
    let gone = store.change_endpoint(APPLICATION, endpoint(99), &asked).await.expect("a look");
    assert!(gone.is_none() && in_force(store).await.is_empty(), "no key for an unknown endpoint");
    let set = |number| store.change_endpoint(APPLICATION, endpoint(number), &asked);
    let (first, second) = tokio::join!(set(1), set(2));
    assert!(first.expect("a change").is_some() && second.expect("a change").is_some());
    assert_eq!(in_force(store).await.len(), 1, "a single key");
    let made = in_force(store).await[0].0;

    let KeyRotation::Done(keys) = rotate(store, 3, HOUR).await else { panic!("no rotation") };
    assert_eq!(keys, store.signing_keys(APPLICATION).await.expect("keys"));
    assert_eq!(in_force(store).await, [(public(3), false), (made, true)]);
    assert_eq!(rotate(store, 4, HOUR).await, KeyRotation::UnderWay);
    database.run("UPDATE signing_keys SET expires_at = now() WHERE expires_at IS NOT NULL").await;
    assert_eq!(in_force(store).await, [(public(3), false)]);
    set(1).await.expect("a change");
    assert_eq!(in_force(store).await, [(public(3), false)]);

    rotate(store, 5, HOUR).await;
    assert_eq!(database.count("signing_keys").await, 2, "the ended key is deleted");
    // A leaked key ends at once, also during an overlap.
    rotate(store, 6, Duration::ZERO).await;
    assert_eq!(in_force(store).await, [(public(6), false)]);
    assert_eq!(database.count("signing_keys").await, 1);

    rotate(store, 7, HOUR).await;
    assert!(store.end_key_rotation(APPLICATION).await.expect("an end"));
    assert_eq!(in_force(store).await, [(public(7), false)]);
    assert!(!store.end_key_rotation(STRANGER).await.expect("a look"));

    let strange = store.rotate_signing_keys(STRANGER, &[1; 32], HOUR).await.expect("a look");
    assert_eq!(strange, KeyRotation::NoSuchApplication);
}

#[tokio::test]
async fn the_services_copy_has_the_keys_of_asymmetric_endpoints() {
    let database = Database::fresh().await;
    let stop = CancellationToken::new();
    let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
    let directory = Directory::follow(database.another_store(), dialects, stop.clone()).await;
    let loaded = async || {
        assert!(directory.refresh([APPLICATION]).await);
        let application = directory.application(APPLICATION).expect("the application");
        let of_endpoint = |number| {
            let endpoint = application.endpoint(endpoint(number)).expect("the endpoint");
            let keys: Vec<PublicKey> = endpoint.live_keys(directory.now()).map(SigningKey::public).collect();
            keys
        };
        let set = application.signing_keys.as_ref().and_then(|keys| keys.key_set(directory.now()));
        (of_endpoint(1), of_endpoint(2), set.map_or(0, |set| set.document.matches("kid").count()))
    };
    assert_eq!(loaded().await, (vec![], vec![], 0));
    let set = async |number, is_asymmetric| {
        let settings = EndpointSettings { is_asymmetric: Some(is_asymmetric), ..EndpointSettings::default() };
        let changed = database.store.change_endpoint(APPLICATION, endpoint(number), &settings).await;
        assert_eq!(changed.expect("a change").expect("the endpoint").is_asymmetric, is_asymmetric);
    };
    rotate(&database.store, 1, HOUR).await;
    assert_eq!(loaded().await, (vec![], vec![], 1), "no endpoint uses the key");
    set(1, true).await;
    assert_eq!(loaded().await, (vec![public(1)], vec![], 1));
    // A change of another endpoint loads that endpoint alone.
    set(2, true).await;
    assert_eq!(loaded().await, (vec![public(1)], vec![public(1)], 1));
    set(1, false).await;
    rotate(&database.store, 2, HOUR).await;
    assert_eq!(loaded().await, (vec![], vec![public(2), public(1)], 2));
    rotate(&database.store, 3, Duration::ZERO).await;
    assert_eq!(loaded().await, (vec![], vec![public(3)], 1));
    stop.cancel();
}

#[tokio::test]
async fn private_keys_are_bound_to_their_row_and_reencrypted() {
    let database = Database::fresh().await;
    rotate(&database.store, 1, HOUR).await;
    rotate(&database.store, 2, HOUR).await;
    let text = "SELECT string_agg(encode(ciphertext, 'hex'), '') FROM signing_keys";
    let sealed: String = database.client.query_one(text, &[]).await.expect("keys").get(0);
    assert!(!sealed.contains(&"01".repeat(32)) && !sealed.contains(&"02".repeat(32)));

    let keyring = format!("new:{}=,test:{}=", "B".repeat(42) + "A", "A".repeat(43));
    let both = fanfare_store::StoreSettings { keyring: keyring.parse().expect("keys"), ..settings(&database.url) };
    let both = Store::new(both).expect("a store");
    assert_eq!(both.reencrypt().await.expect("a re-encryption").secrets, 2 + endpoint_secrets(&database).await);
    assert_eq!(both.reencrypt().await.expect("a re-encryption").secrets, 0);
    assert_eq!(database.count("signing_keys WHERE key_name = 'new'").await, 2);

    let stop = CancellationToken::new();
    let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
    let directory = Directory::follow(both, dialects, stop.clone()).await;
    let keys = directory.application(APPLICATION).expect("the application").signing_keys.clone().expect("keys");
    let signs: Vec<PublicKey> = keys.live(directory.now()).map(SigningKey::public).collect();
    assert_eq!(signs, [public(2), public(1)]);
    // The ciphertext of another row is refused: the application is served as before, and without keys if no endpoint
    // uses the keys.
    let moved = "UPDATE signing_keys SET ciphertext = (SELECT ciphertext FROM signing_keys WHERE expires_at IS NULL)";
    database.run(moved).await;
    assert!(directory.refresh([APPLICATION]).await);
    assert!(!directory.is_unreadable(APPLICATION));
    assert!(directory.application(APPLICATION).expect("the application").signing_keys.is_none());
    let asked = EndpointSettings { is_asymmetric: Some(true), ..EndpointSettings::default() };
    database.store.change_endpoint(APPLICATION, endpoint(1), &asked).await.expect("a change");
    assert!(directory.refresh([APPLICATION]).await);
    assert!(directory.is_unreadable(APPLICATION));
    // The recovery.
    rotate(&database.store, 3, Duration::ZERO).await;
    assert!(directory.refresh([APPLICATION]).await);
    assert!(!directory.is_unreadable(APPLICATION));
    stop.cancel();
}

async fn endpoint_secrets(database: &Database) -> u64 {
    database.count("endpoint_secrets").await.unsigned_abs()
}
