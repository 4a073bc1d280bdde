//! Steps of replays beside other statements. `lists` tests replays over a large table.

use std::time::Duration;

use fanfare_domain::{
    delivery::{
        State,
        replay::{ReplayState, Replayed},
    },
    endpoint::access_token::GrantedToken,
    ids::ReplayId,
};
use fanfare_store::{NewReplay, Step, Wanted};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::{
    APPLICATION, Database, ONE, Sent, TWO, authenticate, endpoint, failed, lease_id, moment, oauth2, starting,
};

async fn prepared(database: &Database) -> (NewReplay, Vec<Wanted>, Vec<Sent>) {
    let mut sent = Vec::new();
    for _ in 0..3 {
        let delivery = database.persist_one(endpoint(1), starting(1)).await;
        database.store.record(&[&failed(&delivery, 1, 1)]).await.expect("a commit");
        sent.push(delivery);
    }
    let replay = NewReplay {
        id: ReplayId(Uuid::from_u128(7)),
        application: APPLICATION,
        endpoint: None,
        event_types: Vec::new(),
        states: vec![Replayed::In(State::Failed)],
        since: moment(60),
        until: Timestamp::now() + Duration::from_secs(60),
        rate_per_second: 10,
    };
    database.store.create_replay(&replay, 5).await.expect("a commit").expect("room");
    let wanted = sent.iter().map(|sent| Wanted {
        event: sent.event,
        accepted_at: sent.delivery.accepted_at(),
        endpoint: sent.endpoint,
        expires_at: Timestamp::now() + Duration::from_secs(60),
    });
    (replay, wanted.collect(), sent)
}

fn step(wanted: &[Wanted], is_last: bool) -> Step {
    let last = wanted.iter().map(|delivery| (delivery.accepted_at, delivery.event)).max();
    Step { from: None, reached: last, events: wanted.len(), is_last }
}

#[tokio::test]
async fn of_two_processes_at_once_one_takes_the_step() {
    let database = Database::new().await;
    let (replay, wanted, sent) = prepared(&database).await;
    let advance = |process| {
        let (store, replay, wanted) = (database.another_store(), replay.clone(), wanted.clone());
        tokio::spawn(async move { store.advance_replay(&replay, step(&wanted, true), &wanted, Some(process)).await })
    };
    let (first, second) = (advance(ONE), advance(TWO));
    let (first, second) =
        (first.await.expect("a task").expect("a commit"), second.await.expect("a task").expect("a commit"));
    assert!(first.is_some() != second.is_some());
    let advanced = first.or(second).expect("a step");
    assert_eq!((advanced.queued, advanced.backlogs.len()), (3, 1));
    let row = database.open(sent[0].delivery).await.expect("an open row");
    assert_eq!((row.place(), row.finished_once), (("queued", 2), true));
    assert_eq!(database.count("open_deliveries WHERE class = 1").await, 3);
    let row = database.store.replay(APPLICATION, replay.id).await.expect("a look").expect("a replay");
    assert_eq!((row.state, row.deliveries), (ReplayState::Done, 3));
}

#[tokio::test]
async fn a_replay_that_does_not_run_takes_no_step() {
    let database = Database::new().await;
    let (replay, wanted, _) = prepared(&database).await;
    database.run("UPDATE replays SET state = 'paused'").await;
    let advanced =
        database.store.advance_replay(&replay, step(&wanted, false), &wanted, Some(ONE)).await.expect("a look");
    assert!(advanced.is_none());
    assert_eq!((database.count("open_deliveries").await, database.count("endpoint_backlogs").await), (0, 0));
}

#[tokio::test]
async fn a_delivery_that_was_requested_meanwhile_is_opened_once() {
    let database = Database::new().await;
    let (replay, wanted, sent) = prepared(&database).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    let open = "INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, listed, finished_once,
                                             attempt, expires_at)
                SELECT id, event_id, application_id, endpoint_id, 'queued', true, true, 2, now() + interval '1 h'
                FROM deliveries WHERE id = $1";
    by_hand.execute("SELECT FROM deliveries WHERE id = $1 FOR UPDATE", &[&sent[1].delivery.0]).await.expect("a lock");
    by_hand.execute(open, &[&sent[1].delivery.0]).await.expect("a resend");
    let (store, steps) = (database.another_store(), step(&wanted, true));
    let waiting = tokio::spawn(async move { store.advance_replay(&replay, steps, &wanted, Some(ONE)).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(waiting.await.expect("a task").expect("a commit").expect("a step").queued, 2);
    assert_eq!(
        (database.count("open_deliveries").await, database.count("open_deliveries WHERE class = 1").await),
        (3, 2)
    );
}

#[tokio::test]
async fn deliveries_that_cannot_be_sent_now_fill_no_room_of_a_replay() {
    let database = Database::new().await;
    let (replay, wanted, _) = prepared(&database).await;
    database.store.advance_replay(&replay, step(&wanted, true), &wanted, Some(ONE)).await.expect("a commit");
    let queued = async || database.store.queued_of_replay(replay.id, 10).await.expect("a count");
    assert_eq!(queued().await, 3);
    database.run("UPDATE endpoint_backlogs SET rests_until = now() + interval '1 h'").await;
    assert_eq!(queued().await, 0, "the endpoint rests");
    database.run("UPDATE endpoint_backlogs SET rests_until = now() - interval '1 h'").await;
    assert_eq!(queued().await, 3);

    let version = authenticate(&database, &oauth2("s3cret")).await;
    assert_eq!(queued().await, 0, "no token");
    let fetch = lease_id(1);
    database.store.begin_fetch(endpoint(1), version, fetch).await.expect("a commit").expect("a fetch");
    assert_eq!(queued().await, 0, "no token yet");
    let token = GrantedToken { token: "token".to_owned().into(), life: Duration::from_secs(3600) };
    let granted = database.store.grant_token(endpoint(1), (version, fetch), &token, Timestamp::now()).await;
    assert!(granted.expect("a commit"));
    assert_eq!(queued().await, 3);
    database.run("UPDATE endpoint_tokens SET usable_until = now()").await;
    assert_eq!(queued().await, 0, "the token has ended");
}
