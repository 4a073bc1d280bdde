//! The lanes of endpoints, shown by the dispatchers that have them.

use std::time::Instant;

use fanfare_domain::{
    ids::{DispatcherId, EndpointId},
    lane::Pace,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, store::milliseconds};

/// A lane as its dispatcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneView {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Attempts on their way.
    pub in_flight: usize,
    /// How many may be.
    pub bound: usize,
    /// Deliveries that wait for their turn.
    pub waiting: usize,
    /// How soon attempts are answered.
    pub pace: Pace,
    /// Failures in a row.
    pub failures: u32,
    /// When the breaker lets the next attempt pass; none where it is closed.
    pub open_until: Option<Instant>,
}

/// A lane as it was last shown.
#[derive(Debug, Clone)]
pub struct ShownLane {
    /// Whose it is.
    pub dispatcher: DispatcherId,
    /// Attempts on their way.
    pub in_flight: i32,
    /// How many may be.
    pub bound: i32,
    /// Deliveries that wait for their turn.
    pub waiting: i32,
    /// How soon attempts are answered.
    pub pace: String,
    /// Failures in a row.
    pub failures: i32,
    /// When the breaker lets the next attempt pass; none where it is closed.
    pub breaker_open_until: Option<Timestamp>,
    /// When this was so.
    pub seen_at: Timestamp,
}

/// A row that was not written again for so long is that of a process which is gone.
const UNSEEN: &str = "seen_at < now() - interval '30 seconds'";

impl Store {
    /// Shows a dispatcher's lanes, each endpoint once and sorted by it, and no longer those of the endpoints in `gone`,
    /// which must be others.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn show_lanes(
        &self,
        dispatcher: DispatcherId,
        shown: &[LaneView],
        gone: &[EndpointId],
    ) -> Result<(), StoreError> {
        let statement = "WITH gone AS (DELETE FROM lanes WHERE dispatcher = $1 AND endpoint_id = ANY($2))
                         INSERT INTO lanes (endpoint_id, dispatcher, in_flight, bound, waiting, pace, failures,
                                            breaker_open_until)
                         SELECT endpoint_id, $1, in_flight, bound, waiting, pace, failures,
                                now() + open_ms * interval '1 millisecond'
                         FROM unnest($3::uuid[], $4::int[], $5::int[], $6::int[], $7::text[], $8::int[], $9::bigint[])
                         AS shown(endpoint_id, in_flight, bound, waiting, pace, failures, open_ms)
                         ON CONFLICT (endpoint_id, dispatcher) DO UPDATE
                         SET in_flight = excluded.in_flight, bound = excluded.bound, waiting = excluded.waiting,
                             pace = excluded.pace, failures = excluded.failures,
                             breaker_open_until = excluded.breaker_open_until, seen_at = now()";
        let now = Instant::now();
        let gone: Vec<Uuid> = gone.iter().map(|endpoint| endpoint.0).collect();
        let endpoints: Vec<Uuid> = shown.iter().map(|lane| lane.endpoint.0).collect();
        let count = |of: fn(&LaneView) -> usize| -> Vec<i32> { shown.iter().map(|lane| number(of(lane))).collect() };
        let paces: Vec<&str> = shown.iter().map(|lane| lane.pace.as_str()).collect();
        let open = |lane: &LaneView| lane.open_until.map(|until| milliseconds(until.saturating_duration_since(now)));
        let open_ms: Vec<Option<i64>> = shown.iter().map(open).collect();
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(statement).await?;
        connection
            .execute(
                &statement,
                &[
                    &dispatcher.0,
                    &gone,
                    &endpoints,
                    &count(|lane| lane.in_flight),
                    &count(|lane| lane.bound),
                    &count(|lane| lane.waiting),
                    &paces,
                    &count(|lane| lane.failures as usize),
                    &open_ms,
                ],
            )
            .await?;
        Ok(())
    }

    /// Shows none of a dispatcher's lanes any more.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn hide_lanes(&self, dispatcher: DispatcherId) -> Result<(), StoreError> {
        self.connection().await?.execute("DELETE FROM lanes WHERE dispatcher = $1", &[&dispatcher.0]).await?;
        Ok(())
    }

    /// Forgets the lanes of dispatchers that are gone.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn forget_unseen_lanes(&self) -> Result<(), StoreError> {
        // What somebody else deletes at the same moment, or writes again, is left to him.
        let statement = format!(
            "DELETE FROM lanes l
             USING (SELECT endpoint_id, dispatcher FROM lanes WHERE {UNSEEN} FOR UPDATE SKIP LOCKED) unseen
             WHERE l.endpoint_id = unseen.endpoint_id AND l.dispatcher = unseen.dispatcher"
        );
        self.connection().await?.execute(&statement, &[]).await?;
        Ok(())
    }

    /// The lanes that dispatchers show of an endpoint.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn lanes(&self, endpoint: EndpointId) -> Result<Vec<ShownLane>, StoreError> {
        let statement = format!(
            "SELECT dispatcher, in_flight, bound, waiting, pace, failures, breaker_open_until, seen_at
             FROM lanes WHERE endpoint_id = $1 AND NOT ({UNSEEN}) ORDER BY dispatcher"
        );
        let rows = self.connection().await?.query(&statement, &[&endpoint.0]).await?;
        let shown = rows.iter().map(|row| ShownLane {
            dispatcher: DispatcherId(row.get(0)),
            in_flight: row.get(1),
            bound: row.get(2),
            waiting: row.get(3),
            pace: row.get(4),
            failures: row.get(5),
            breaker_open_until: row.get(6),
            seen_at: row.get(7),
        });
        Ok(shown.collect())
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
