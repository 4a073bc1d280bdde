//! Numbers of deliveries by state. Each number stops at a bound, and is read from indexes of the state only.

use fanfare_domain::{
    delivery::State,
    ids::{ApplicationId, DeliveryId, EndpointId},
};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{Store, StoreError};

/// Greatest number of deliveries counted in a state.
pub const MAX_COUNTED: i64 = 10_000;

/// Leases read for the number of deliveries in state `sending`: about all places of a large deployment.
const MAX_LEASES: i64 = 20_000;

/// Number of deliveries in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateCount {
    /// State of the deliveries.
    pub state: State,
    /// Number of deliveries, at most [`MAX_COUNTED`].
    pub deliveries: i64,
    /// True if there are, or may be, more deliveries.
    pub is_bounded: bool,
}

/// Selects the deliveries to count.
#[derive(Debug, Clone, Default)]
pub struct CountFilter {
    /// Deliveries to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Deliveries of events accepted from this moment on.
    pub since: Option<Timestamp>,
    /// Deliveries of events accepted before this moment.
    pub until: Option<Timestamp>,
}

impl Store {
    /// Counts an application's deliveries: sending, scheduled, queued, held, failed and skipped. Deliveries to deleted
    /// endpoints count only as sending, failed or skipped.
    pub async fn count_deliveries(
        &self,
        application: ApplicationId,
        filter: &CountFilter,
    ) -> Result<[StateCount; 6], StoreError> {
        let first = |moment| DeliveryId::bounds(moment).0.0;
        let (least, below) = (filter.since.map_or(Uuid::nil(), first), filter.until.map_or(Uuid::max(), first));
        let endpoint = filter.endpoint.map(|id| id.0);
        let parameters: [&(dyn ToSql + Sync); 5] = [&application.0, &least, &below, &endpoint, &(MAX_COUNTED + 1)];
        let rows = self.query_by_kept_plan(&statement(filter.endpoint.is_some()), &parameters).await?;
        let row = rows.first().ok_or_else(|| StoreError::corrupt("deliveries", "no row of counts"))?;
        let states = [State::Sending, State::Scheduled, State::Queued, State::Held, State::Failed, State::Skipped];
        let count = |state: State| {
            let counted: i64 = row.get(state.as_str());
            let is_cut = state == State::Sending && row.get::<_, i64>("leases") >= MAX_LEASES;
            let is_bounded = is_cut || counted > MAX_COUNTED;
            StateCount { state, deliveries: counted.min(MAX_COUNTED), is_bounded }
        };
        Ok(states.map(count))
    }
}

/// Statement of all counts. Parameters: application, least id, end of the ids, endpoint, bound.
fn statement(is_of_endpoint: bool) -> String {
    let finished = |state: &str| {
        let scope = if is_of_endpoint { "d.endpoint_id = $4 AND" } else { "" };
        format!(
            "(SELECT count(*) FROM (
                 SELECT FROM deliveries d
                 WHERE {scope} d.application_id = $1 AND d.state <> 'delivered' AND d.state = '{state}'
                   AND d.id >= $2 AND d.id < $3
                   AND NOT coalesce((SELECT true FROM open_deliveries once WHERE once.id = d.id), false)
                 LIMIT $5) rows) AS {state}"
        )
    };
    // The walk begins at the endpoints: indexes of open deliveries by state begin with the endpoint.
    let open = |name: &str, state: &str, endpoints: &str| {
        format!(
            "(SELECT count(*) FROM (
                 SELECT FROM endpoints p
                 CROSS JOIN LATERAL (
                     SELECT FROM open_deliveries o
                     WHERE o.endpoint_id = p.id AND {state} AND o.id >= $2 AND o.id < $3 LIMIT $5) of_endpoint
                 WHERE p.application_id = $1 AND p.deleted_at IS NULL AND ($4::uuid IS NULL OR p.id = $4) {endpoints}
                 LIMIT $5) rows) AS {name}"
        )
    };
    format!(
        "WITH leases AS MATERIALIZED (
             SELECT id, application_id, endpoint_id FROM open_deliveries WHERE state = 'sending'
             ORDER BY lease_until DESC LIMIT {MAX_LEASES})
         SELECT (SELECT count(*) FROM leases) AS leases,
                (SELECT count(*) FROM leases l WHERE l.application_id = $1 AND ($4::uuid IS NULL OR l.endpoint_id = $4)
                                                 AND l.id >= $2 AND l.id < $3) AS sending,
                {}, {}, {}, {}, {}",
        open("scheduled", "o.state = 'scheduled'", ""),
        open("queued", "o.state = 'queued'", "AND p.status <> 'paused'"),
        open("held", "o.state = 'queued'", "AND p.status = 'paused'"),
        finished("failed"),
        finished("skipped")
    )
}
