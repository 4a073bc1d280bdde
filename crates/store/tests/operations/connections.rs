//! Connections of several users of the database, and the share of a caller.

use std::time::Duration;

use fanfare_store::{PoolState, Share, Store, StoreError, with_caller};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::database::Database;

const LIMIT: Duration = Duration::from_secs(15);

fn state(store: &Store, name: &str) -> PoolState {
    store.pools().into_iter().find(|state| state.name == name).expect("a pool of the name")
}

#[tokio::test]
async fn silent_connections_of_all_users_are_left() {
    let database = Database::new().await;
    let api = database.store.beside("api", [2, 1], LIMIT).expect("pools");
    api.ping().await.expect("an answer");
    assert_eq!(state(&database.store, "api").states, [("used", 0), ("idle", 1), ("waiting", 0), ("limit", 3)]);
    let never = std::future::pending::<Result<(), StoreError>>();
    database.store.with_deadline(Duration::from_millis(10), never).await.expect_err("no answer");
    assert_eq!(state(&database.store, "api").states, [("used", 0), ("idle", 0), ("waiting", 0), ("limit", 3)]);
}

#[tokio::test]
async fn a_caller_uses_its_share_at_most() {
    let database = Database::fresh().await;
    let api = database.store.beside("api", [4, 1], LIMIT).expect("pools");
    let locker = database.connect().await;
    locker.batch_execute("BEGIN; LOCK TABLE job_runs").await.expect("a lock");
    let share = Share::new([2, 1]);
    let asking = join_all((0..4).map(|_| with_caller(Some(share.clone()), api.job_runs())));
    let meanwhile = async {
        database.await_waiting(2).await;
        with_caller(Some(Share::new([2, 1])), api.ping()).await.expect("an answer for another caller");
        assert_eq!(state(&api, "api").states[..3], [("used", 2), ("idle", 1), ("waiting", 0)]);
        locker.batch_execute("COMMIT").await.expect("an answer");
    };
    let (answers, ()) = tokio::join!(asking, meanwhile);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn a_dropped_request_frees_its_connection_at_once() {
    let database = Database::fresh().await;
    let api = database.store.beside("api", [1, 1], LIMIT).expect("pools");
    let locker = database.connect().await;
    locker.batch_execute("BEGIN; LOCK TABLE job_runs").await.expect("a lock");
    tokio::select! {
        _ = with_caller(None, api.job_runs()) => panic!("the table is locked"),
        () = database.await_waiting(1) => {}
    }
    timeout(Duration::from_secs(2), api.ping()).await.expect("a connection").expect("an answer");
    let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let ended = async {
        while database.count(waiting).await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(2), ended).await.expect("the end of the statement");
}
