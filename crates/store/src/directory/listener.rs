//! The connection for notices of changes. The listener asks this connection for the time, every [`ASK`]. If the
//! connection is silent while a new connection answers, all connections of that age are silent: no answer will
//! come.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use crate::{
    Store, StoreError,
    directory::changes::{Changes, Heard},
};

/// Wait between a failed connection and the next.
const RETRY: Duration = Duration::from_millis(500);

/// Deadline to connect, and another to listen and to get the first answer.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between two questions for the time.
const ASK: Duration = Duration::from_secs(2);

/// Deadline of an answer. Afterwards the listener asks a new connection as well.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the old connection's answer after a new connection's answer. An answering server has answered the old
/// connection before.
const GRACE: Duration = Duration::from_secs(1);

/// Notes the change of each notice in `heard`. Notes a change of everything after each (re)connection, when notices may
/// have been missed.
pub(super) async fn listen(store: Store, heard: Heard) {
    loop {
        if let Err(error) = listen_once(&store, &heard).await {
            tracing::warn!(%error, "the connection for notices of changes is gone; connecting again");
        }
        sleep(RETRY).await;
    }
}

async fn listen_once(store: &Store, heard: &Heard) -> Result<(), StoreError> {
    let connecting = timeout(SET_UP_TIMEOUT, store.dial());
    let (client, mut connection) = connecting.await.map_err(|late| StoreError::Unavailable(late.into()))??;
    let messages = stream::poll_fn(move |context| connection.poll_message(context));
    let reader = async move {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(notice) = message? {
                heard.add(Changes::of_notice(notice.payload()));
            }
        }
        Ok::<(), StoreError>(())
    };
    let asking = async {
        let set_up = timeout(SET_UP_TIMEOUT, async {
            client.batch_execute("LISTEN fanfare_configuration").await?;
            ask(store, &client).await
        });
        set_up.await.map_err(|late| StoreError::Unavailable(late.into()))??;
        store.clock.compare();
        heard.add(Changes::all());
        loop {
            sleep(ASK).await;
            store.pools.close_idle();
            if is_silent(store, &client).await? {
                tracing::warn!("connections to the database fell silent; opening new connections");
                store.leave_connections();
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = reader => ended,
        ended = asking => ended,
    }
}

/// Asks a connection for the time. Without an answer, asks new connections until an answer comes. While no new
/// connection answers, the server is slow or away, and the old connection is not at fault.
async fn is_silent(store: &Store, client: &Client) -> Result<bool, StoreError> {
    let mut answer = pin!(ask(store, client));
    if let Ok(answer) = timeout(ANSWER_TIMEOUT, &mut answer).await {
        answer?;
        return Ok(false);
    }
    loop {
        tokio::select! {
            answer = &mut answer => {
                answer?;
                return Ok(false);
            }
            other = timeout(ANSWER_TIMEOUT, ask_anew(store)) => {
                if matches!(other, Ok(Ok(()))) {
                    return Ok(timeout(GRACE, &mut answer).await.is_err());
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// Asks a new connection for the time.
async fn ask_anew(store: &Store) -> Result<(), StoreError> {
    let (client, connection) = store.dial().await?;
    tokio::select! {
        answered = ask(store, &client) => answered,
        ended = connection => Ok(ended?),
    }
}

async fn ask(store: &Store, client: &Client) -> Result<(), StoreError> {
    let asked_at = Instant::now();
    let row = client.query_one("SELECT clock_timestamp()", &[]).await?;
    // A late answer says little of the time.
    if asked_at.elapsed() < GRACE {
        store.clock.set(row.get(0), asked_at);
    }
    Ok(())
}
