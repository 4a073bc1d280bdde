//! A watch over PostgreSQL's sessions while a load runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tokio_postgres::Client;

/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(20);

/// The longest wait for a lock, and the longest statement, of all sessions of this database but the watch's own.
const SESSIONS: &str = "
SELECT coalesce(max(waited) FILTER (WHERE is_waiting), 0), coalesce(max(waited), 0),
       coalesce((array_agg(query ORDER BY waited DESC))[1], '')
FROM (SELECT (extract(epoch FROM clock_timestamp() - query_start) * 1000)::float8 AS waited,
             coalesce(wait_event_type = 'Lock', false) AS is_waiting, left(query, 200) AS query
      FROM pg_stat_activity
      WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
            AND query NOT ILIKE '%vacuum%' AND application_name <> 'bench') sessions";

/// What a watch has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The longest wait for a lock, in milliseconds.
    pub(crate) lock_wait: f64,
    /// The longest statement, in milliseconds.
    pub(crate) statement: f64,
    /// The beginning of its text.
    pub(crate) text: String,
}

/// A running watch.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    seen: JoinHandle<Seen>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn begin(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = tokio::spawn(look(client, Arc::clone(&stop)));
        Self { stop, seen }
    }

    /// Ends, and tells what was seen.
    pub(crate) async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.seen.await.expect("the watch ends")
    }
}

async fn look(client: Client, stop: Arc<AtomicBool>) -> Seen {
    let statement = client.prepare(SESSIONS).await.expect("a statement");
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let row = client.query_one(&statement, &[]).await.expect("the sessions");
        seen.lock_wait = seen.lock_wait.max(row.get(0));
        if row.get::<_, f64>(1) > seen.statement {
            (seen.statement, seen.text) = (row.get(1), row.get(2));
        }
        // The pace of the looks, until the end of the watch.
        sleep(LOOK).await;
    }
    seen
}
