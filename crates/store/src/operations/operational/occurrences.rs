//! Occurrences behind the mark: deliveries given up, messages parked, and finished replays.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use fanfare_domain::{
    ids::{ApplicationId, DeliveryId, ReplayId, first_id},
    operational::{Condition, ReplayFigures, state::Occurrences},
    time::saturating_sub,
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{OperationalKey, OperationalMark};
use crate::{Store, StoreError};

/// Tolerance for the clock of the process that made the id of a parked message.
const CLOCKS: Duration = Duration::from_secs(600);

/// Reasons of failed deliveries that a request caused, or a test.
const REQUESTED: [&str; 3] = ["endpoint_deleted", "erased", "test_failed"];

/// Occurrences of a recurring condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurred {
    /// Subject and condition.
    pub key: OperationalKey,
    /// Application of the subject; `None` for messages of no known application.
    pub application: Option<ApplicationId>,
    /// Numbers and times.
    pub occurrences: Occurrences,
}

/// A finished replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedReplay {
    /// Application of the replay.
    pub application: ApplicationId,
    /// Time of the end.
    pub at: Timestamp,
    /// Figures of the replay.
    pub figures: ReplayFigures,
}

/// Parameters: operator's application, times, reasons to leave out.
const GIVEN_UP: &str = "
SELECT d.endpoint_id AS subject, d.application_id, d.reason, count(*) AS count, min(d.finished_at) AS first,
       max(d.finished_at) AS last, min(d.id::text COLLATE \"C\")::uuid AS delivery
FROM deliveries d
WHERE d.state = 'failed' AND d.finished_at > $2 AND d.finished_at <= $3 AND d.application_id <> $1
  AND d.reason <> ALL ($4)
GROUP BY 1, 2, 3";

/// Parameters: smallest id, times.
const PARKED: &str = "
SELECT split_part(coalesce(routing_key, ''), '.', 1) AS name, reason, count(*) AS count, min(parked_at) AS first,
       max(parked_at) AS last
FROM parked WHERE id >= $1 AND parked_at > $2 AND parked_at <= $3 GROUP BY 1, 2";

/// Parameters: operator's application, times.
const FINISHED: &str = "
SELECT id, application_id, state, events, deliveries, created_at, finished_at FROM replays
WHERE finished_at IS NOT NULL AND finished_at > $2 AND finished_at <= $3 AND application_id <> $1";

impl Store {
    /// Deliveries given up, and messages parked, behind the mark and up to `until`.
    pub async fn occurrences(&self, mark: &OperationalMark, until: Timestamp) -> Result<Vec<Occurred>, StoreError> {
        let from = mark.counted;
        let reasons = REQUESTED.as_slice();
        let parameters: [&(dyn ToSql + Sync); 4] = [&mark.application.0, &from, &until, &reasons];
        let mut occurred: HashMap<OperationalKey, Occurred> = HashMap::new();
        for row in self.query_by_kept_plan(GIVEN_UP, &parameters).await? {
            let application = Some(ApplicationId(row.get("application_id")));
            let key = OperationalKey { subject: row.get("subject"), condition: Condition::GivingUp };
            let first = DeliveryId(row.get("delivery"));
            add(&mut occurred, key, application, occurrences(&row, Some(first)));
        }
        let rows = self.query_by_kept_plan(PARKED, &[&first_id(saturating_sub(from, CLOCKS)), &from, &until]).await?;
        let named = |row: &Row| row.get::<_, &str>("name").parse::<ApplicationId>().ok();
        let named_ids: Vec<Uuid> = rows.iter().filter_map(named).map(|id| id.0).collect();
        let statement = "SELECT id FROM applications WHERE id = ANY ($1)";
        let known = self.connection().await?.query(statement, &[&named_ids]).await?;
        let known: Vec<Uuid> = known.iter().map(|row| row.get(0)).collect();
        for row in &rows {
            let application = named(row).filter(|id| known.contains(&id.0));
            if application == Some(mark.application) {
                continue;
            }
            let subject = application.map_or_else(Uuid::nil, |id| id.0);
            let key = OperationalKey { subject, condition: Condition::MessagesParked };
            add(&mut occurred, key, application, occurrences(row, None));
        }
        Ok(occurred.into_values().collect())
    }

    /// Replays that ended behind the mark and up to `until`.
    pub async fn finished_replays(
        &self,
        mark: &OperationalMark,
        until: Timestamp,
    ) -> Result<Vec<FinishedReplay>, StoreError> {
        let rows = self.query_by_kept_plan(FINISHED, &[&mark.application.0, &mark.counted, &until]).await?;
        let count = |row: &Row, column: &str| row.get::<_, i64>(column).unsigned_abs();
        let replay = |row: &Row| FinishedReplay {
            application: ApplicationId(row.get("application_id")),
            at: row.get("finished_at"),
            figures: ReplayFigures {
                id: ReplayId(row.get("id")),
                state: row.get("state"),
                events: count(row, "events"),
                deliveries: count(row, "deliveries"),
                created_at: row.get("created_at"),
            },
        };
        Ok(rows.iter().map(replay).collect())
    }
}

fn occurrences(row: &Row, first_delivery: Option<DeliveryId>) -> Occurrences {
    let reasons = BTreeMap::from([(row.get("reason"), row.get::<_, i64>("count").unsigned_abs())]);
    Occurrences { reasons, times: (row.get("first"), row.get("last")), first_delivery }
}

/// Adds the occurrences of a reason.
fn add(
    occurred: &mut HashMap<OperationalKey, Occurred>,
    key: OperationalKey,
    application: Option<ApplicationId>,
    more: Occurrences,
) {
    let Some(known) = occurred.get_mut(&key) else {
        occurred.insert(key, Occurred { key, application, occurrences: more });
        return;
    };
    let known = &mut known.occurrences;
    if more.times.0 < known.times.0 {
        known.first_delivery = more.first_delivery;
    }
    known.times = (known.times.0.min(more.times.0), known.times.1.max(more.times.1));
    for (reason, count) in more.reasons {
        *known.reasons.entry(reason).or_default() += count;
    }
}
