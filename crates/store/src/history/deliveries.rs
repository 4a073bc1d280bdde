//! Deliveries, as the API shows them, from two tables: `deliveries` holds finished deliveries, `open_deliveries` all
//! others.
//!
//! A finished delivery that is requested again has a row in both tables; lists show the open row. Each list is one
//! statement, and so one snapshot: a delivery moved between the tables meanwhile appears once.

use fanfare_domain::{
    delivery::State,
    event::{ordering::Sequence, subscription::Subscription},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::{kept_plan, store::row_count},
    history::{
        attempts::{AttemptRow, SELECT_ATTEMPTS, read_attempt},
        delivery_pages::{FINISHED, OPEN, detailed, list_statement, max_walked},
        events::{LONGEST_LISTED, SHOWN_BODY, type_condition},
    },
    pipeline::{bodies::OwnBody, lease::sequence},
};

/// Selects the deliveries of a list. A delivery must meet all conditions.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Deliveries to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Deliveries of this event.
    pub event: Option<EventId>,
    /// Deliveries in one of these states, each named once; empty for all states.
    pub states: Vec<State>,
    /// Deliveries with these ids.
    pub ids: Option<Vec<DeliveryId>>,
    /// Deliveries of events accepted from this moment on.
    pub since: Option<Timestamp>,
    /// Deliveries of events accepted before this moment.
    pub until: Option<Timestamp>,
    /// Deliveries of events of these types.
    pub event_type: Option<Subscription>,
    /// Deliveries whose last attempt got a status from the first to the second number.
    pub status: Option<(u16, u16)>,
    /// Deliveries whose last attempt has this outcome.
    pub outcome: Option<&'static str>,
    /// Deliveries with this reason of their state.
    pub reason: Option<&'static str>,
    /// Deliveries with this text among the first 8,192 characters of the event's readable body, or of an answer.
    pub contains: Option<String>,
    /// Deliveries older than this delivery: the last delivery of the previous page.
    pub before: Option<DeliveryId>,
    /// Deliveries newer than this delivery.
    pub after: Option<DeliveryId>,
    /// True for rows with bodies.
    pub with_bodies: bool,
    /// Size of the page.
    pub limit: usize,
}

impl DeliveryFilter {
    /// True if no index serves the filter: a page looks through a bounded number of deliveries.
    pub fn is_search(&self) -> bool {
        max_walked(self).is_some()
    }

    /// True if the statement has one of few texts, so that each connection may keep the plan. A search takes so long
    /// that its planning is a small part.
    fn has_kept_plan(&self) -> bool {
        // A webhook's list of all or delivered walks the index of the webhook or of the application: the better one
        // depends on the webhook's share of the application.
        let is_of_webhook = self.endpoint.is_some() && matches!(self.states.as_slice(), [] | [State::Delivered]);
        self.states.len() <= 1 && !is_of_webhook && max_walked(self).is_none() && self.ids.is_none()
    }

    /// Least and greatest id of a match. `accepted_at` is the acceptance of `event`.
    fn bounds(&self, accepted_at: Option<Timestamp>) -> (Uuid, Uuid) {
        let number = |id: DeliveryId| id.0.as_u128();
        let first = |moment| number(DeliveryId::bounds(moment).0);
        let of_event = accepted_at.map(DeliveryId::bounds);
        let ids = self.ids.as_ref();
        let least = [
            self.since.map(first),
            of_event.map(|(first, _)| number(first)),
            self.after.map(|after| number(after).saturating_add(1)),
            ids.and_then(|ids| ids.iter().min()).map(|id| number(*id)),
        ];
        let greatest = [
            self.until.map(|until| first(until).saturating_sub(1)),
            of_event.map(|(_, last)| number(last)),
            self.before.map(|before| number(before).saturating_sub(1)),
            ids.and_then(|ids| ids.iter().max()).map(|id| number(*id)),
        ];
        let least = least.into_iter().flatten().max().unwrap_or(0);
        let greatest = greatest.into_iter().flatten().min().unwrap_or(u128::MAX);
        (Uuid::from_u128(least), Uuid::from_u128(greatest))
    }
}

/// A page of deliveries.
#[derive(Debug, Clone, Default)]
pub struct DeliveryPage {
    /// Deliveries, newest first.
    pub deliveries: Vec<DeliveryRow>,
    /// Last delivery that a search looked at, if the bound of a step ended the page early. The next page begins behind
    /// it.
    pub passed: Option<DeliveryId>,
}

/// A delivery, with details of its endpoint and event.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Id of the delivery.
    pub id: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Type of the event.
    pub event_type: String,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Current URL of the endpoint.
    pub url: String,
    /// Name of the endpoint.
    pub endpoint_name: Option<String>,
    /// State of the delivery.
    pub state: State,
    /// Reason of the state, if the last attempt does not show the reason.
    pub reason: Option<String>,
    /// Number of the current, next or last attempt.
    pub attempt: u32,
    /// Failed attempts caused by the endpoint.
    pub failures: u32,
    /// Due time of the next attempt; `None` unless `Scheduled`.
    pub due_at: Option<Timestamp>,
    /// Place in the order of the event's ordering key.
    pub sequence: Option<Sequence>,
    /// Acceptance of the event.
    pub accepted_at: Timestamp,
    /// End of the delivery.
    pub finished_at: Option<Timestamp>,
    /// Number of attempts, including the current attempt.
    pub attempts: u32,
    /// Status of the last response.
    pub response_status: Option<i32>,
    /// The last mail to an owner that reported a failure of the delivery: time and address.
    pub mailed: Option<(Timestamp, String)>,
    /// True if `body` lacks the values of redacted members.
    pub is_redacted: bool,
    /// Body as sent; `None` for a long body in a list.
    pub body: Option<String>,
    /// Why the webhook's template had no body for the event.
    pub fault: Option<String>,
}

impl Store {
    /// Lists an application's deliveries, newest first.
    pub async fn deliveries(
        &self,
        application: ApplicationId,
        filter: &DeliveryFilter,
    ) -> Result<DeliveryPage, StoreError> {
        let mut accepted_at = None;
        if let Some(event) = filter.event {
            accepted_at = self.accepted_at(event).await?;
            if accepted_at.is_none() {
                return Ok(DeliveryPage::default());
            }
        }
        let (least, greatest) = filter.bounds(accepted_at);
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let ids = filter.ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<Uuid>>());
        let (exact, prefix) = type_condition(filter.event_type.as_ref());
        let (from, to) = filter.status.map(|(from, to)| (i32::from(from), i32::from(to))).unzip();
        let (text, bytes) = (filter.contains.as_deref(), filter.contains.as_deref().map(str::as_bytes));
        let limit = row_count(filter.limit);
        let parameters: [&(dyn ToSql + Sync); 15] = [
            &application.0,
            &least,
            &greatest,
            &limit,
            &endpoint,
            &event,
            &ids,
            &exact,
            &prefix,
            &from,
            &to,
            &filter.outcome,
            &filter.reason,
            &text,
            &bytes,
        ];
        let statement = list_statement(filter);
        let rows = if filter.has_kept_plan() {
            self.query_by_kept_plan(&statement, &parameters).await?
        } else {
            self.connection().await?.query(&statement, &parameters).await?
        };
        let passed = rows.first().and_then(|row| row.get::<_, Option<Uuid>>("passed")).map(DeliveryId);
        let found = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some());
        let mut deliveries = found.clone().map(read).collect::<Result<Vec<_>, _>>()?;
        let longest = if filter.with_bodies { LONGEST_LISTED } else { 0 };
        self.put_own_bodies(&mut deliveries, &found.collect::<Vec<_>>(), longest).await?;
        Ok(DeliveryPage { deliveries, passed })
    }

    /// Replaces the events' bodies by the deliveries' own. Reads nothing further unless an endpoint has had a template.
    async fn put_own_bodies(
        &self,
        deliveries: &mut [DeliveryRow],
        rows: &[&Row],
        longest: i32,
    ) -> Result<(), StoreError> {
        let may_have = |row: &&Row| row.get::<_, bool>("had_template");
        let ids = rows.iter().copied().filter(may_have).map(|row| DeliveryId(row.get("id")));
        let mut own = self.own_bodies(ids.collect::<Vec<_>>(), longest).await?;
        for row in deliveries {
            if let Some(OwnBody { body, is_redacted, fault }) = own.remove(&row.id) {
                (row.is_redacted, row.fault) = (is_redacted, fault);
                row.body = body;
            }
        }
        Ok(())
    }

    /// Finds a delivery of an application, with its attempts from first to last.
    pub async fn delivery(
        &self,
        application: ApplicationId,
        id: DeliveryId,
    ) -> Result<Option<(DeliveryRow, Vec<AttemptRow>)>, StoreError> {
        let mut connection = self.connection().await?;
        // One snapshot for both statements, so that the delivery counts exactly the attempts returned.
        let transaction = kept_plan::begin(&mut connection).await?;
        let page = format!(
            "SELECT {FINISHED} FROM deliveries d WHERE d.application_id = $1 AND d.id = $2
             UNION ALL
             SELECT {OPEN} FROM open_deliveries o WHERE o.id = $2 AND o.application_id = $1
             ORDER BY is_open DESC LIMIT 1"
        );
        let statement = format!("WITH page AS MATERIALIZED ({page}), {} SELECT * FROM detailed", detailed(SHOWN_BODY));
        let statement = transaction.prepare_cached(&statement).await?;
        let Some(row) = transaction.query_opt(&statement, &[&application.0, &id.0]).await? else { return Ok(None) };
        let statement = transaction.prepare_cached(SELECT_ATTEMPTS).await?;
        let attempts = transaction.query(&statement, &[&application.0, &id.0]).await?;
        transaction.commit().await?;
        drop(connection);
        let mut delivery = read(&row)?;
        self.put_own_bodies(std::slice::from_mut(&mut delivery), &[&row], i32::MAX).await?;
        Ok(Some((delivery, attempts.iter().map(read_attempt).collect())))
    }
}

fn read(row: &Row) -> Result<DeliveryRow, StoreError> {
    let state: &str = row.get("state");
    let id = DeliveryId(row.get("id"));
    Ok(DeliveryRow {
        id,
        event: EventId(row.get("event_id")),
        event_type: row.get("type"),
        endpoint: EndpointId(row.get("endpoint_id")),
        url: row.get("url"),
        endpoint_name: row.get("name"),
        state: State::parse(state).ok_or_else(|| StoreError::corrupt("deliveries", format!("state {state:?}")))?,
        reason: row.get("reason"),
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        due_at: row.get("due_at"),
        sequence: sequence(row),
        accepted_at: id.accepted_at(),
        finished_at: row.get("finished_at"),
        attempts: u32::try_from(row.get::<_, i32>("attempts")).unwrap_or_default(),
        response_status: row.get("response_status"),
        mailed: row.get::<_, Option<Timestamp>>("mailed_at").zip(row.get("mailed_to")),
        is_redacted: row.get("is_redacted"),
        body: row.get("body"),
        fault: None,
    })
}
