//! Sends an existing event to a webhook without a delivery of the event.

use std::time::Duration;

use fanfare_domain::{
    delivery::QueueReason,
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use tokio_postgres::types::ToSql;

use crate::{
    Store, StoreError, configuration::endpoints::TAKES_DELIVERIES, connection::store::milliseconds,
    pipeline::backlogs::with_backlogs,
};

/// Result of a request to send an event to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The delivery is queued, by this request or an earlier one.
    Queued(DeliveryId),
    /// The delivery exists, and is being sent, scheduled or finished: a resend is possible.
    Known(DeliveryId),
    /// The event does not exist.
    NoSuchEvent,
    /// The event is erased.
    Erased,
    /// The event is a test, or below the line of retention.
    NotSendable,
    /// The deliveries of the event are being created.
    FanningOut,
    /// The event is delayed, and not yet due.
    Delayed,
    /// The event was cancelled.
    Cancelled,
    /// The endpoint is deleted or disabled, belongs to another application, or is read by its feed only.
    NoSuchEndpoint,
}

// The lock comes first, in a statement of its own: the snapshot of the next statement includes the rows of each request
// that held the lock.
const LOCK_EVENT: &str = "
SELECT erased_at IS NOT NULL AS is_erased, cancelled_at IS NOT NULL AS is_cancelled,
       deliver_at IS NOT NULL AND EXISTS (SELECT FROM delayed_events d WHERE d.event_id = $3) AS is_delayed,
       NOT is_test AND type <> 'fanfare.digest' AND accepted_at >= (SELECT line FROM retention) AS is_sendable
FROM events WHERE application_id = $1 AND accepted_at = $2 AND id = $3 FOR UPDATE";

/// Parameters: application, delivery, event, endpoint, reason, lifetime.
fn open() -> String {
    format!(
        "WITH known AS MATERIALIZED (
    SELECT o.state = 'queued' AS is_queued FROM open_deliveries o WHERE o.id = $2
    UNION ALL
    SELECT false FROM deliveries d WHERE d.application_id = $1 AND d.id = $2
), fan_out AS MATERIALIZED (
    SELECT FROM fan_outs f WHERE f.event_id = $3
), endpoint AS MATERIALIZED (
    SELECT p.id, p.template IS NOT NULL AS shaped FROM endpoints p
    WHERE p.id = $4 AND p.application_id = $1 AND {TAKES_DELIVERIES}
), queued AS (
    INSERT INTO open_deliveries AS o (id, event_id, application_id, endpoint_id, state, reason, listed, expires_at,
                                      shaped)
    SELECT $2, $3, $1, id, 'queued', $5, true, now() + $6::bigint * interval '1 millisecond', shaped FROM endpoint
    WHERE NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM fan_out)
    ON CONFLICT (id) DO NOTHING
    RETURNING o.id, o.event_id, o.endpoint_id, o.application_id, o.reason, o.shaped
), listed AS (
    INSERT INTO feed_entries (endpoint_id, id, application_id, event_id)
    SELECT q.endpoint_id, q.id, q.application_id, q.event_id FROM queued q JOIN endpoints p ON p.id = q.endpoint_id
    -- Otherwise the entry comes with the body.
    WHERE p.feed <> 'none' AND NOT q.shaped
), {with_backlogs}
SELECT EXISTS (SELECT FROM queued) OR coalesce((SELECT bool_or(is_queued) FROM known), false) AS is_queued,
       EXISTS (SELECT FROM known) AS is_known, EXISTS (SELECT FROM fan_out) AS fans_out,
       EXISTS (SELECT FROM endpoint) AS has_endpoint",
        with_backlogs = with_backlogs("NULL")
    )
}

impl Store {
    /// Opens the delivery of an event to an endpoint without such a delivery, whatever the endpoint's subscriptions.
    /// The delivery may take `lifetime` from now on.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the delivery may have been opened; another request returns the same delivery.
    pub async fn send_event(
        &self,
        application: ApplicationId,
        event: EventId,
        endpoint: EndpointId,
        lifetime: Duration,
    ) -> Result<Opened, StoreError> {
        let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Opened::NoSuchEvent) };
        let delivery = DeliveryId::derive(accepted_at, event, endpoint);
        let mut connection = self.writer().await?;
        let transaction = connection.transaction().await?;
        let row = transaction.query_opt(LOCK_EVENT, &[&application.0, &accepted_at, &event.0]).await?;
        let Some(row) = row else { return Ok(Opened::NoSuchEvent) };
        if row.get("is_erased") {
            return Ok(Opened::Erased);
        }
        if row.get("is_cancelled") {
            return Ok(Opened::Cancelled);
        }
        if row.get("is_delayed") {
            return Ok(Opened::Delayed);
        }
        if !row.get::<_, bool>("is_sendable") {
            return Ok(Opened::NotSendable);
        }
        let reason = QueueReason::Resent.as_str();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&application.0, &delivery.0, &event.0, &endpoint.0, &reason, &milliseconds(lifetime)];
        let row = transaction.query_one(&open(), &parameters).await?;
        transaction.commit().await?;
        let is = |name| row.get::<_, bool>(name);
        Ok(match () {
            () if is("is_queued") => Opened::Queued(delivery),
            () if is("is_known") => Opened::Known(delivery),
            () if is("fans_out") => Opened::FanningOut,
            () if !is("has_endpoint") => Opened::NoSuchEndpoint,
            // A replay opened the delivery between the snapshot and the insert.
            () => Opened::Known(delivery),
        })
    }
}
