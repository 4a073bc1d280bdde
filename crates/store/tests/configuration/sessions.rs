//! Sessions of the web pages, and the links that open them.

use std::time::Duration;

use fanfare_domain::{
    access::{
        api_key::{Role, Token},
        session::{Face, Right, Rights, SessionToken, SignIn},
    },
    ids::{ApplicationId, KeyId, SessionId},
};
use fanfare_store::NewSession;
use uuid::Uuid;

use crate::database::{APPLICATION, Database};

fn token(number: u128) -> SessionToken {
    SessionToken::from_random(SessionId(Uuid::from_u128(number)), [u8::try_from(number % 251).unwrap_or_default(); 32])
}

fn new() -> NewSession {
    NewSession {
        face: Face::Console,
        application: Some(APPLICATION),
        rights: [Right::Test].into_iter().collect(),
        key: None,
        creator: None,
        sign_in: SignIn::Key,
        name: "somebody@example".to_owned(),
        lifetime: Duration::from_secs(3600),
        idle: Duration::from_secs(600),
        back: None,
        theme: None,
    }
}

#[tokio::test]
async fn a_session_is_found_by_its_whole_token() {
    let database = Database::new().await;
    let store = &database.store;
    store.create_session(&token(1), &new(), None).await.expect("a session");
    let session = store.session(&token(1)).await.expect("a look").expect("a session");
    assert_eq!((session.application, session.face, session.idle.as_secs()), (Some(APPLICATION), Face::Console, 600));
    assert_eq!(session.rights, [Right::View, Right::Test].into_iter().collect());
    assert_eq!(session.ends_at.duration_since(session.created_at).as_secs(), 3600);
    let wrong = SessionToken::from_random(token(1).session, [9; 32]);
    assert!(store.session(&wrong).await.expect("a look").is_none());
    assert!(store.linked_session(&token(1)).await.expect("a look").is_none(), "an open session is no link");
    let digests = database.count("sessions WHERE digest = '\\x01'").await;
    assert_eq!(digests, 0);
}

#[tokio::test]
async fn a_session_ends_by_sign_out_idleness_and_age() {
    let database = Database::new().await;
    let store = &database.store;
    let ends = [
        "ended_at = now()",
        "seen_at = now() - interval '601 s'",
        "created_at = now() - interval '3601 s', seen_at = now()",
        "opens_until = now() + interval '1 minute'",
    ];
    for (number, end) in (10..).zip(ends) {
        store.create_session(&token(number), &new(), None).await.expect("a session");
        assert!(store.session(&token(number)).await.expect("a look").is_some());
        database.run(&format!("UPDATE sessions SET {end} WHERE id = '{}'", token(number).session.0)).await;
        assert!(store.session(&token(number)).await.expect("a look").is_none(), "{end}");
    }
    assert_eq!(store.sessions(None, None, None, 10).await.expect("a list").len(), 1, "the unopened link");
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let database = Database::new().await;
    let store = &database.store;
    let key = Token::from_random(KeyId(Uuid::from_u128(7)), [7; 32]);
    store.create_key(&key, Role::Manage, Some(APPLICATION), None).await.expect("a key");
    store.create_session(&token(2), &NewSession { key: Some(key.key), ..new() }, None).await.expect("a session");
    assert!(store.session(&token(2)).await.expect("a look").is_some());
    store.revoke_key(key.key).await.expect("a revocation");
    assert!(store.session(&token(2)).await.expect("a look").is_none());
    assert!(store.sessions(None, None, None, 10).await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_link_opens_once_and_only_in_its_time() {
    let database = Database::new().await;
    let store = &database.store;
    let (link, cookie) = (token(3), SessionToken::from_random(token(3).session, [33; 32]));
    store.create_session(&link, &new(), Some(Duration::from_secs(60))).await.expect("a link");
    assert!(store.session(&link).await.expect("a look").is_none(), "a link is no session");
    assert!(store.linked_session(&link).await.expect("a look").is_some(), "a look does not use the link up");
    let (first, second) = tokio::join!(store.open_session(&link, &cookie), store.open_session(&link, &cookie));
    let opened = [first.expect("an answer"), second.expect("an answer")];
    assert_eq!(opened.iter().filter(|opened| opened.is_some()).count(), 1, "a link opens once");
    assert!(store.session(&cookie).await.expect("a look").is_some());
    assert!(store.session(&link).await.expect("a look").is_none(), "the link's token is no cookie");

    store.create_session(&token(4), &new(), Some(Duration::from_secs(60))).await.expect("a link");
    database.run("UPDATE sessions SET opens_until = now() WHERE opens_until IS NOT NULL").await;
    assert!(store.open_session(&token(4), &cookie).await.expect("an answer").is_none(), "too late");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_application() {
    let database = Database::new().await;
    let store = &database.store;
    for number in 20..23 {
        store.create_session(&token(number), &new(), None).await.expect("a session");
    }
    store.create_session(&token(23), &NewSession { application: None, ..new() }, None).await.expect("a session");
    let ids = async |application, before| {
        let sessions = store.sessions(application, None, before, 2).await.expect("a list");
        sessions.iter().map(|session| session.id.0.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, None).await, [23, 22]);
    assert_eq!(ids(Some(APPLICATION), Some(token(22).session)).await, [21, 20]);
    let other = Some(ApplicationId(Uuid::from_u128(1)));
    assert!(!store.end_session(token(20).session, other).await.expect("an answer"));
    assert!(store.end_session(token(20).session, Some(APPLICATION)).await.expect("an answer"));
    let session = store.session(&token(21)).await.expect("a look").expect("a session");
    assert_eq!(store.end_sessions_of(&session).await.expect("an answer"), 3, "of the same visitor");
    assert!(ids(None, None).await.is_empty());
}

/// A sender chooses the name of a link, and two ways to sign in may know the same name.
#[tokio::test]
async fn a_name_alone_is_no_visitor() {
    let database = Database::new().await;
    let store = &database.store;
    let ways = [SignIn::Link, SignIn::Link, SignIn::Proxy, SignIn::Proxy, SignIn::Provider];
    for (number, sign_in) in (40..).zip(ways) {
        store.create_session(&token(number), &NewSession { sign_in, ..new() }, None).await.expect("a session");
    }
    for (number, ended) in [(40, 1), (42, 2)] {
        let session = store.session(&token(number)).await.expect("a look").expect("a session");
        assert_eq!(store.end_sessions_of(&session).await.expect("an answer"), ended, "{:?}", session.sign_in);
    }
    let left = store.sessions(None, None, None, 10).await.expect("a list");
    assert_eq!(left.iter().map(|session| session.id.0.as_u128()).collect::<Vec<_>>(), [44, 41]);
}

#[tokio::test]
async fn a_session_ends_with_its_creator() {
    let database = Database::new().await;
    let store = &database.store;
    for (number, creator) in [(50, None), (51, Some(50)), (52, None), (53, Some(52))] {
        let creator = creator.map(|number| token(number).session);
        store.create_session(&token(number), &NewSession { creator, ..new() }, None).await.expect("a session");
    }
    store.end_session_of(&SessionToken::from_random(token(50).session, [9; 32])).await.expect("an answer");
    assert!(store.session(&token(51)).await.expect("a look").is_some(), "another token ended the session");
    store.end_session_of(&token(50)).await.expect("an answer");
    database.run(&format!("DELETE FROM sessions WHERE id = '{}'", token(52).session.0)).await;
    for number in [50, 51, 53] {
        assert!(store.session(&token(number)).await.expect("a look").is_none(), "{number}");
    }
}

#[tokio::test]
async fn old_sessions_are_deleted() {
    let database = Database::new().await;
    let store = &database.store;
    for number in 30..33 {
        store.create_session(&token(number), &NewSession { rights: Rights::all(), ..new() }, None).await.expect("one");
    }
    let id = |number| token(number).session.0;
    database.run(&format!("UPDATE sessions SET ended_at = now() - interval '25 h' WHERE id = '{}'", id(30))).await;
    database.run(&format!("UPDATE sessions SET created_at = now() - interval '26 h' WHERE id = '{}'", id(31))).await;
    assert_eq!(store.drop_sessions().await.expect("a deletion"), 2);
    assert_eq!(database.count("sessions").await, 1);
}
