//! The connection that hears of changes. It is asked for the time again and again. Where it does not answer while a new
//! one does, connections fell silent: nothing will ever come from those that are as old.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client};

use crate::{Store, StoreError};

/// How long a failed connection waits before the next.
const RETRY: Duration = Duration::from_millis(500);

/// The longest that it may take to connect, and then to be heard of.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the connection is asked for the time.
const ASK: Duration = Duration::from_secs(2);

/// An answer to that takes no time. Where this one does, a new connection is asked as well.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that has answered a new connection has answered the old one before, but for so much.
const GRACE: Duration = Duration::from_secs(1);

/// Passes a hint on for every notice, and one after each (re)connection, since notices may have been missed.
pub(crate) async fn listen(store: Store, notices: mpsc::Sender<()>) {
    loop {
        if let Err(error) = listen_once(&store, &notices).await {
            tracing::warn!(%error, "the connection that listens for changes is gone; connecting again");
        }
        sleep(RETRY).await;
    }
}

async fn listen_once(store: &Store, notices: &mpsc::Sender<()>) -> Result<(), StoreError> {
    let connecting = timeout(SET_UP_TIMEOUT, store.dial());
    let (client, mut connection) = connecting.await.map_err(|late| StoreError::Unavailable(late.into()))??;
    let messages = stream::poll_fn(move |context| connection.poll_message(context));
    let hints = notices.clone();
    let reader = async move {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(_) = message? {
                // A full channel already holds the same hint.
                let _ = hints.try_send(());
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
        let _ = notices.try_send(());
        loop {
            sleep(ASK).await;
            if is_silent(store, &client).await? {
                tracing::warn!("connections to the database fell silent; taking new ones");
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

/// Asks a connection for the time. Where it does not answer, others are made until one does: as long as none does, the server is
/// slow, or away, and not the connection silent.
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

/// Asks a connection of its own.
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
    // An answer that took long says little of the time.
    if asked_at.elapsed() < GRACE {
        store.clock.set(row.get(0), asked_at);
    }
    Ok(())
}
