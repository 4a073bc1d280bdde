//! Watch over PostgreSQL's sessions during a load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tokio_postgres::Client;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Selects the longest wait for a lock and the longest statement of all sessions, without vacuum and the bench.
const SESSIONS: &str = "
SELECT coalesce(max(waited) FILTER (WHERE is_waiting), 0), coalesce(max(waited), 0),
       coalesce((array_agg(query ORDER BY waited DESC))[1], '')
FROM (SELECT (extract(epoch FROM clock_timestamp() - query_start) * 1000)::float8 AS waited,
             coalesce(wait_event_type = 'Lock', false) AS is_waiting, left(query, 200) AS query
      FROM pg_stat_activity
      WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
            AND query NOT ILIKE '%vacuum%' AND application_name <> 'bench') sessions";

/// Peaks over all sessions and polls of a watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionPeaks {
    /// Longest wait for a lock, in milliseconds.
    pub(crate) lock_wait: f64,
    /// Longest statement, in milliseconds.
    pub(crate) statement: f64,
    /// Beginning of the longest statement's text.
    pub(crate) text: String,
}

/// Task that polls the sessions.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<SessionPeaks>,
}

impl Watch {
    /// Starts the task.
    pub(crate) fn begin(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(poll_sessions(client, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Stops the task. Returns its peaks.
    pub(crate) async fn end(self) -> SessionPeaks {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the peaks of the watch")
    }
}

async fn poll_sessions(client: Client, stop: Arc<AtomicBool>) -> SessionPeaks {
    let statement = client.prepare(SESSIONS).await.expect("a statement");
    let mut peaks = SessionPeaks::default();
    while !stop.load(Ordering::Relaxed) {
        let row = client.query_one(&statement, &[]).await.expect("the sessions");
        peaks.lock_wait = peaks.lock_wait.max(row.get(0));
        if row.get::<_, f64>(1) > peaks.statement {
            (peaks.statement, peaks.text) = (row.get(1), row.get(2));
        }
        // The interval of the polls, until the end of the watch.
        sleep(POLL_INTERVAL).await;
    }
    peaks
}
