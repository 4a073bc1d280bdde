//! Tokens of token servers, shared by processes.

use std::time::Duration;

use fanfare_domain::endpoint::access_token::{GrantedToken, TokenFault};
use fanfare_store::{EndpointSettings, TokenTurn};
use jiff::{SignedDuration, Timestamp};

use crate::database::{APPLICATION, Database, authenticate, endpoint, lease_id, oauth2};

fn granted(token: &str, seconds: u64) -> GrantedToken {
    GrantedToken { token: token.to_owned().into(), life: Duration::from_secs(seconds) }
}

/// The step of a process that looks, and begins a fetch that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The fetch is begun, after this number of failures in a row.
    Fetch(u32),
    /// The fetch was due, and could not be begun.
    Refused,
    Elsewhere,
    Until(Timestamp),
}

impl Database {
    async fn look(&self, version: i64, fetch: u128) -> (Option<String>, Turn) {
        let look = self.store.access_token(endpoint(1), version).await.expect("a look");
        let turn = match look.turn {
            TokenTurn::Due => {
                let begun = self.store.begin_fetch(endpoint(1), version, lease_id(fetch)).await.expect("a commit");
                begun.map_or(Turn::Refused, Turn::Fetch)
            }
            TokenTurn::Elsewhere => Turn::Elsewhere,
            TokenTurn::Until(at) => Turn::Until(at),
        };
        (look.token.map(|token| token.token.reveal().to_owned()), turn)
    }

    async fn grant(&self, version: i64, fetch: u128, token: &GrantedToken) -> bool {
        let began = Timestamp::now();
        self.store.grant_token(endpoint(1), (version, lease_id(fetch)), token, began).await.expect("a commit")
    }
}

#[tokio::test]
async fn of_two_processes_one_fetches_and_both_get_the_token() {
    let database = Database::new().await;
    let version = authenticate(&database, &oauth2("s3cret")).await;
    let (one, two) = tokio::join!(database.look(version, 1), database.look(version, 2));
    let begun = [one.1, two.1].into_iter().filter(|turn| *turn == Turn::Fetch(0)).count();
    assert_eq!(begun, 1, "{one:?} {two:?}");
    let winner = if one.1 == Turn::Fetch(0) { 1 } else { 2 };
    assert!(!database.grant(version, 9, &granted("foreign", 60)).await, "another fetch stores nothing");
    assert!(database.grant(version, winner, &granted("token-1", 3600)).await);
    for fetch in [3, 4] {
        let (token, turn) = database.look(version, fetch).await;
        assert_eq!(token.as_deref(), Some("token-1"));
        let Turn::Until(renewal) = turn else { panic!("{turn:?}") };
        let wait = renewal.duration_since(Timestamp::now());
        assert!((SignedDuration::from_secs(2870)..=SignedDuration::from_secs(2880)).contains(&wait), "{wait:?}");
    }
    assert_eq!(
        database.count("endpoint_tokens WHERE position('token-1'::bytea IN ciphertext) > 0").await,
        0,
        "encrypted"
    );

    // A renewal is a fetch like any other, and the present token stays usable.
    database.run("UPDATE endpoint_tokens SET renew_at = now(), next_fetch_at = now()").await;
    assert_eq!(database.look(version, 5).await, (Some("token-1".to_owned()), Turn::Fetch(0)));
    assert_eq!(database.look(version, 6).await, (Some("token-1".to_owned()), Turn::Elsewhere));
    assert!(database.grant(version, 5, &granted("token-2", 3600)).await);
    assert_eq!(database.look(version, 6).await.0.as_deref(), Some("token-2"));

    // The lease of a process that died ends.
    database.run("UPDATE endpoint_tokens SET renew_at = now(), next_fetch_at = now()").await;
    assert_eq!(database.look(version, 7).await.1, Turn::Fetch(0));
    database.run("UPDATE endpoint_tokens SET fetch_ends_at = now()").await;
    assert_eq!(database.look(version, 8).await.1, Turn::Fetch(0));
    assert!(!database.grant(version, 7, &granted("late", 3600)).await, "a late answer changes nothing");
}

#[tokio::test]
async fn a_failing_token_server_is_asked_at_growing_intervals_and_its_state_is_shown() {
    let database = Database::new().await;
    let version = authenticate(&database, &oauth2("s3cret")).await;
    assert_eq!(database.store.token_state(endpoint(1), version).await.expect("an answer"), None);
    for failures in 0..4 {
        let fetch = 10 + u128::from(failures);
        assert_eq!(database.look(version, fetch).await, (None, Turn::Fetch(failures)));
        let fault = TokenFault::Status(503);
        let lease = (version, lease_id(fetch));
        assert!(database.store.fail_token(endpoint(1), lease, &fault, failures + 1).await.expect("a commit"));
        let (_, turn) = database.look(version, 99).await;
        let Turn::Until(next) = turn else { panic!("{turn:?}") };
        let wait = next.duration_since(Timestamp::now()).as_secs_f64();
        let longest = f64::from(1 << failures);
        assert!(wait > longest * 0.7 && wait <= longest, "{wait} after {failures} failures");
        database.run("UPDATE endpoint_tokens SET next_fetch_at = now()").await;
    }
    let state = database.store.token_state(endpoint(1), version).await.expect("an answer").expect("a state");
    assert_eq!((state.error.as_deref(), state.usable_until), (Some("answers 503"), None));
    assert!(state.failing_since < state.failed_at);

    // A fetch without a connection, for a reason of ours, is no failure of the token server.
    assert_eq!(database.look(version, 14).await.1, Turn::Fetch(4));
    let ours = TokenFault::EgressUnavailable("no route".to_owned());
    let lease = (version, lease_id(14));
    assert!(database.store.fail_token(endpoint(1), lease, &ours, 5).await.expect("a commit"));
    let after = database.store.token_state(endpoint(1), version).await.expect("an answer").expect("a state");
    assert_eq!(after, state);
    assert!(matches!(database.look(version, 15).await.1, Turn::Until(_)));
    database.run("UPDATE endpoint_tokens SET next_fetch_at = now()").await;
    assert_eq!(database.look(version, 15).await.1, Turn::Fetch(4));

    // Other settings begin anew, at once; a process with the old settings gets nothing.
    let newer = authenticate(&database, &oauth2("other")).await;
    assert!(newer > version);
    assert_eq!(database.look(version, 20).await, (None, Turn::Refused));
    assert_eq!(database.look(newer, 21).await, (None, Turn::Fetch(0)));
    assert!(database.grant(newer, 21, &granted("token-1", 60)).await);
    let state = database.store.token_state(endpoint(1), newer).await.expect("an answer").expect("a state");
    assert!(state.error.is_none() && state.failing_since.is_none() && state.usable_until.is_some(), "{state:?}");

    // A restored database has an older version, and the row of a newer one.
    database.run("UPDATE endpoint_tokens SET version = version + 5").await;
    assert_eq!(database.look(newer, 22).await, (None, Turn::Fetch(0)));
}

#[tokio::test]
async fn a_refused_token_is_discarded_once_and_renewed_after_five_seconds() {
    let database = Database::new().await;
    let version = authenticate(&database, &oauth2("s3cret")).await;
    database.look(version, 1).await;
    database.grant(version, 1, &granted("token-1", 3600)).await;
    let generation = |look: fanfare_store::TokenLook| look.token.expect("a token").generation;
    let look = database.store.access_token(endpoint(1), version).await.expect("a look");
    let first = generation(look);
    database.store.refuse_token(endpoint(1), version, first).await.expect("a commit");
    let (token, turn) = database.look(version, 3).await;
    let Turn::Until(next) = turn else { panic!("{turn:?}") };
    let wait = next.duration_since(Timestamp::now()).as_secs_f64();
    assert!(token.is_none() && wait > 3.0 && wait <= 5.0, "{wait}");
    database.run("UPDATE endpoint_tokens SET next_fetch_at = now()").await;
    assert_eq!(database.look(version, 4).await.1, Turn::Fetch(0));
    assert!(database.grant(version, 4, &granted("token-2", 3600)).await);
    database.store.refuse_token(endpoint(1), version, first).await.expect("a commit");
    assert_eq!(database.look(version, 5).await.0.as_deref(), Some("token-2"), "a late refusal discards no newer token");
}

#[tokio::test]
async fn a_token_that_cannot_be_decrypted_is_fetched_anew() {
    let database = Database::new().await;
    let version = authenticate(&database, &oauth2("s3cret")).await;
    database.look(version, 1).await;
    database.grant(version, 1, &granted("token-1", 3600)).await;
    database.run("UPDATE endpoint_tokens SET ciphertext = 'x', fetched_at = now() - interval '1 min'").await;
    database.run("UPDATE endpoint_tokens SET next_fetch_at = now()").await;
    assert_eq!(database.look(version, 2).await, (None, Turn::Fetch(0)));
    assert!(database.grant(version, 2, &granted("token-2", 3600)).await);
    assert_eq!(database.look(version, 3).await.0.as_deref(), Some("token-2"));
    assert!(database.store.delete_endpoint(APPLICATION, endpoint(1)).await.expect("a commit"));
    assert_eq!(database.count("endpoint_tokens").await, 0);
}

#[tokio::test]
async fn credentials_are_encrypted_kept_and_removed() {
    let database = Database::new().await;
    let version = authenticate(&database, &oauth2("s3cret")).await;
    let stored = database.store.authentication(APPLICATION, endpoint(1)).await.expect("an answer").expect("settings");
    assert_eq!(stored.version, version);
    assert_eq!(stored.oauth2().expect("OAuth 2.0").client_secret.reveal(), "s3cret");
    let secret =
        "endpoints e WHERE e::text LIKE '%s3cret%' OR position('s3cret'::bytea IN authentication_ciphertext) > 0";
    assert_eq!(database.count(secret).await, 0);

    // A change that keeps a secret which was changed meanwhile changes nothing.
    let keeping = EndpointSettings { keeps_secret_of: Some(version), ..oauth2("s3cret") };
    let newer = authenticate(&database, &oauth2("newer")).await;
    let kept = database.store.change_endpoint(APPLICATION, endpoint(1), &keeping).await.expect("an answer");
    assert!(kept.is_none());
    let keeping = EndpointSettings { keeps_secret_of: Some(newer), ..oauth2("newer") };
    assert_eq!(authenticate(&database, &keeping).await, newer + 1);
    let renamed = EndpointSettings { name: Some(Some("renamed".to_owned())), ..EndpointSettings::default() };
    assert_eq!(authenticate(&database, &renamed).await, newer + 1, "another change keeps the version");

    database.look(newer + 1, 1).await;
    database.grant(newer + 1, 1, &granted("token-1", 3600)).await;
    let none = EndpointSettings { authentication: Some(None), ..EndpointSettings::default() };
    authenticate(&database, &none).await;
    assert!(database.store.authentication(APPLICATION, endpoint(1)).await.expect("an answer").is_none());
    assert_eq!(database.count("endpoint_tokens").await, 0, "a change deletes the token");
    assert_eq!(database.count("endpoints WHERE authentication_ciphertext IS NOT NULL").await, 0);

    // The previous release deletes without these columns.
    authenticate(&database, &oauth2("s3cret")).await;
    database.run("UPDATE endpoints SET deleted_at = now() WHERE authentication IS NOT NULL").await;
    let left = "endpoints WHERE authentication IS NOT NULL OR authentication_ciphertext IS NOT NULL";
    assert_eq!(database.count(left).await, 0);
}
