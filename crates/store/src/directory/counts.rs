//! Counts of events and bytes of the applications with a quota, as the publish path needs them.

use std::{collections::HashMap, sync::Arc};

use fanfare_domain::{
    application::quota::{Amount, Counted},
    ids::ApplicationId,
    time::day_of,
};
use jiff::{Timestamp, civil::Date};
use tokio::{sync::watch, time::Instant};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    directory::{
        snapshot::{POLL, Snapshot},
        source::STEP_TIMEOUT,
    },
};

/// Counts of all applications with a quota, at the same moment. Other applications have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    to: Timestamp,
    day: Date,
    of: HashMap<ApplicationId, Amount>,
}

impl Counts {
    /// The counts of an application. Nothing is counted of an application whose quota is new.
    pub fn of(&self, application: ApplicationId) -> Counted {
        match self.of.get(&application) {
            Some(amount) => Counted { to: self.to, day: self.day, amount: *amount },
            None => Counted { to: Timestamp::MIN, day: self.day, amount: Amount::default() },
        }
    }

    /// True if these are the newest counts of the applications.
    fn are_of(&self, to: Timestamp, day: Date, applications: &[Uuid]) -> bool {
        self.to == to
            && self.day == day
            && self.of.len() == applications.len()
            && applications.iter().all(|id| self.of.contains_key(&ApplicationId(*id)))
    }
}

/// Sums of the applications $1: events of day $2, and bytes of all days within the retention. The end of the counted
/// time is of the same moment.
const COUNTS: &str = "
SELECT m.counted, k.id, coalesce(u.events, 0)::bigint AS events, coalesce(u.bytes, 0)::bigint AS bytes
FROM rollup_marks m CROSS JOIN unnest($1::uuid[]) AS k(id)
LEFT JOIN (SELECT application_id, sum(events) FILTER (WHERE day = $2) AS events, sum(bytes) AS bytes FROM usage_days
           WHERE application_id = ANY ($1) AND day >= (SELECT (line AT TIME ZONE 'UTC')::date FROM retention)
           GROUP BY 1) u ON u.application_id = k.id";

/// Keeps the counts new: looks at least every 10 s, and at once after another application has a quota. After an error,
/// the last counts stay in use.
pub(super) async fn keep_counts(
    store: Store,
    mut snapshot: watch::Receiver<Arc<Snapshot>>,
    publish: watch::Sender<Arc<Counts>>,
) {
    let mut known: (Vec<Uuid>, Option<Instant>) = (Vec::new(), None);
    loop {
        let ids = snapshot.borrow_and_update().with_quota();
        let is_due = known.0 != ids || known.1.is_none_or(|looked| looked.elapsed() >= POLL / 2);
        if is_due && !ids.is_empty() {
            let counts = Arc::clone(&publish.borrow());
            let loading = load(&store, &counts, &ids, day_of(store.now()));
            match store.with_deadline(STEP_TIMEOUT, loading).await {
                Ok(Some(counts)) => drop(publish.send_replace(Arc::new(counts))),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot load the counts of quotas; the last counts stay in use");
                }
            }
        }
        if is_due {
            known = (ids, Some(Instant::now()));
        }
        // Each comparison of the configuration notifies.
        if snapshot.changed().await.is_err() {
            return;
        }
    }
}

/// Loads the counts of applications; `None` if `known` are the newest.
pub(super) async fn load(
    store: &Store,
    known: &Counts,
    applications: &[Uuid],
    day: Date,
) -> Result<Option<Counts>, StoreError> {
    let connection = store.connection().await?;
    let to = connection.query_one("SELECT counted FROM rollup_marks", &[]).await?.get(0);
    if known.are_of(to, day, applications) {
        return Ok(None);
    }
    let rows = connection.query(COUNTS, &[&applications, &day]).await?;
    let amount = |row: &Row| {
        let [events, bytes] = ["events", "bytes"].map(|column| row.get::<_, i64>(column).max(0).unsigned_abs());
        (ApplicationId(row.get("id")), Amount { events, bytes })
    };
    let to = rows.first().map_or(to, |row| row.get("counted"));
    Ok(Some(Counts { to, day, of: rows.iter().map(amount).collect() }))
}
