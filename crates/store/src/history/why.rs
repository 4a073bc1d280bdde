//! Facts that explain the way of an event to a webhook. All rows are found by primary key, except a bounded part of the
//! audit log.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare_domain::{
    delivery::{FailureReason, QueueReason, State, outcome::Outcome},
    diagnosis::why::{
        AttemptFacts, BacklogFacts, ChangeFacts, DeliveryFacts, FilterResult, ParkedFacts, TokenFailure, WebhookFacts,
    },
    endpoint::{EndpointStatus, filter::Filter},
    event::subscription::Subscription,
    ids::{ApplicationId, AuditId, DeliveryId, EndpointId, EventId, ParkedId, ReplayId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    configuration::endpoints,
    connection::{kept_plan, store::row_count},
};

/// A webhook with the facts about an event, deleted webhooks included.
#[derive(Debug, Clone)]
pub struct ExplainedWebhook {
    /// Display name.
    pub name: Option<String>,
    /// Present URL.
    pub url: String,
    /// The facts, without the classes of outcomes, and without the filter's result.
    pub facts: WebhookFacts,
}

/// Facts about an event and webhooks.
#[derive(Debug, Clone)]
pub struct Explained {
    /// False if the event is below the line of retention.
    pub is_retained: bool,
    /// The webhooks, in the order asked for. Leaves out webhooks of other applications.
    pub webhooks: Vec<ExplainedWebhook>,
}

/// Attempts of a delivery that are read, the last first.
const MAX_ATTEMPTS: usize = 20;

/// Entries of an application's audit log that are searched for changes of webhooks, the newest first.
const MAX_ENTRIES: usize = 1_000;

/// Changes of webhooks that are read.
const MAX_CHANGES: usize = 200;

/// Changes before the acceptance that are read: the services' copy of the configuration may be this old.
const BEFORE: Duration = Duration::from_secs(60);

/// Parameters: application, endpoints, deliveries in the same order.
const WEBHOOKS: &str = "
SELECT p.id, p.name, p.url, p.created_at, p.deleted_at, p.status, p.status_reason, p.feed, p.event_types, p.filter,
       asked.delivery_id, d.state, d.reason, d.since, d.due_at, d.expires_at, d.replay_id, d.first_in_order, d.parked_by,
       b.since AS backlog_since, b.failures, b.next_probe, b.rests_until,
       CASE WHEN d.reason = 'not_rendered' THEN (SELECT s.fault FROM delivery_bodies s WHERE s.id = asked.delivery_id) END
           AS template_fault,
       t.error AS token_error, CASE WHEN t.usable_until > now() THEN NULL ELSE t.failing_since END AS failing_since,
       p.authentication IS NOT NULL AS has_authentication, p.certificate_ends_at
FROM unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY AS asked(endpoint_id, delivery_id, place)
CROSS JOIN LATERAL (SELECT * FROM endpoints p WHERE p.id = asked.endpoint_id AND p.application_id = $1 LIMIT 1) p
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT o.state, o.reason, o.since, o.due_at, o.expires_at, o.replay_id, true AS is_open,
               CASE WHEN o.class = 2 THEN (
                   SELECT f.id FROM open_deliveries f WHERE f.endpoint_id = o.endpoint_id
                       AND f.ordering_key = o.ordering_key ORDER BY f.sequence LIMIT 1) END AS first_in_order,
               CASE WHEN o.class = 2 THEN (
                   SELECT k.parked_by FROM ordering_keys k
                   WHERE k.endpoint_id = o.endpoint_id AND k.key = o.ordering_key) END AS parked_by
        FROM open_deliveries o WHERE o.id = asked.delivery_id AND o.application_id = $1
        UNION ALL
        SELECT d.state, d.reason, d.finished_at, NULL, NULL, d.replay_id, false, NULL, NULL
        FROM deliveries d WHERE d.application_id = $1 AND d.id = asked.delivery_id) both_tables
    ORDER BY is_open DESC LIMIT 1) d ON true
LEFT JOIN LATERAL (SELECT * FROM endpoint_backlogs b WHERE b.endpoint_id = p.id LIMIT 1) b ON true
LEFT JOIN LATERAL (SELECT * FROM endpoint_tokens t
                   WHERE t.endpoint_id = p.id AND t.version = p.authentication_version LIMIT 1) t ON true
ORDER BY asked.place";

/// Last attempts of the deliveries $2, at most $3 of each, first to last.
const ATTEMPTS: &str = "
SELECT asked.delivery_id, a.* FROM unnest($2::uuid[]) AS asked(delivery_id) CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT attempt, url, started_at, duration_ms, outcome, status, error, md5(response_body) AS digest
        FROM attempts a WHERE a.delivery_id = asked.delivery_id AND a.application_id = $1
        ORDER BY attempt DESC LIMIT $3) logged
    UNION ALL
    SELECT 1, url, started_at, duration_ms, 'answered', status, NULL, md5(response_body)
    FROM deliveries d WHERE d.application_id = $1 AND d.id = asked.delivery_id AND d.started_at IS NOT NULL) a
ORDER BY asked.delivery_id, a.attempt";

/// Successful changes of webhooks of application $1 since the entry $2, among the newest $3 entries.
const CHANGES: &str = "
WITH newest AS MATERIALIZED (
    SELECT id, at, action, request, path, subject, outcome FROM audit_log
    WHERE application_id = $1 AND id >= $2 ORDER BY id DESC LIMIT $3
)
SELECT id, at, action, request, coalesce(path, '') AS path, coalesce(subject, '') AS subject FROM newest
WHERE outcome = 'done' AND action ~ 'webhook|secret|rotation' AND action !~ 'test|verify|create'
ORDER BY id DESC LIMIT $4";

impl Store {
    /// Reads the facts about an event and up to a few dozen webhooks, in one snapshot.
    pub async fn explained(
        &self,
        application: ApplicationId,
        (event, accepted_at): (EventId, Timestamp),
        webhooks: &[EndpointId],
    ) -> Result<Explained, StoreError> {
        let endpoints: Vec<Uuid> = webhooks.iter().map(|id| id.0).collect();
        let deliveries: Vec<Uuid> = webhooks.iter().map(|id| DeliveryId::derive(accepted_at, event, *id).0).collect();
        let first = AuditId::new(accepted_at.checked_sub(BEFORE).unwrap_or(accepted_at), [0; 10]);
        let mut connection = self.connection().await?;
        let transaction = kept_plan::begin(&mut connection).await?;
        let line = transaction.query_one("SELECT line <= $1 FROM retention", &[&accepted_at]).await?;
        let webhooks = transaction.prepare_cached(WEBHOOKS).await?;
        let rows = transaction.query(&webhooks, &[&application.0, &endpoints, &deliveries]).await?;
        let attempts = transaction.prepare_cached(ATTEMPTS).await?;
        let attempts = transaction.query(&attempts, &[&application.0, &deliveries, &row_count(MAX_ATTEMPTS)]).await?;
        let (entries, most) = (row_count(MAX_ENTRIES), row_count(MAX_CHANGES));
        let changes = transaction.query(CHANGES, &[&application.0, &first.0, &entries, &most]).await?;
        transaction.commit().await?;

        let mut of_delivery: HashMap<Uuid, Vec<AttemptFacts>> = HashMap::new();
        for row in &attempts {
            of_delivery.entry(row.get("delivery_id")).or_default().push(attempt(row)?);
        }
        let webhook = |row: &Row| {
            let attempts = of_delivery.remove(&row.get("delivery_id")).unwrap_or_default();
            webhook(row, attempts, &changes)
        };
        Ok(Explained { is_retained: line.get(0), webhooks: rows.iter().map(webhook).collect::<Result<_, _>>()? })
    }

    /// Lists parked messages with this `message_id`, the newest first.
    pub async fn parked_under(&self, message_id: &str, limit: usize) -> Result<Vec<ParkedFacts>, StoreError> {
        let statement = "SELECT id, parked_at, reason, message, routing_key FROM parked WHERE message_id = $1
                         ORDER BY id DESC LIMIT $2";
        let rows = self.connection().await?.query(statement, &[&message_id, &row_count(limit)]).await?;
        let read = |row: &Row| ParkedFacts {
            id: ParkedId(row.get("id")),
            parked_at: row.get("parked_at"),
            reason: row.get("reason"),
            message: row.get("message"),
            routing_key: row.get("routing_key"),
        };
        Ok(rows.iter().map(read).collect())
    }
}

fn webhook(row: &Row, attempts: Vec<AttemptFacts>, changes: &[Row]) -> Result<ExplainedWebhook, StoreError> {
    let id = EndpointId(row.get("id"));
    let corrupt = |what: String| StoreError::corrupt("endpoints", format!("{id}: {what}"));
    let types: Vec<&str> = row.get("event_types");
    let subscriptions = types.into_iter().map(Subscription::parse).collect::<Result<_, _>>();
    let (status, deleted_at): (_, Option<Timestamp>) = (endpoints::status(row)?, row.get("deleted_at"));
    let is_paused = status == EndpointStatus::Paused && deleted_at.is_none();
    let name = id.to_string();
    let is_about =
        |row: &&Row| [row.get::<_, &str>("path"), row.get("subject")].iter().any(|text| text.contains(&name));
    let change =
        |row: &Row| ChangeFacts::of(AuditId(row.get("id")), row.get("at"), row.get("action"), row.get("request"));
    let backlog = |since| BacklogFacts {
        since,
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        next_probe: row.get("next_probe"),
        rests_until: row.get("rests_until"),
    };
    let token_failure =
        |since| TokenFailure { error: row.get::<_, Option<String>>("token_error").unwrap_or_default(), since };
    Ok(ExplainedWebhook {
        name: row.get("name"),
        url: row.get("url"),
        facts: WebhookFacts {
            id,
            created_at: row.get("created_at"),
            deleted_at,
            status,
            status_reason: row.get("status_reason"),
            feed: endpoints::feed(row)?,
            subscriptions: subscriptions.map_err(|fault| corrupt(fault.to_string()))?,
            filter: row.get::<_, Option<String>>("filter").map(|text| Arc::new(Filter::stored(text))),
            filtered: FilterResult::Unknown,
            template_fault: row.get("template_fault"),
            token_failure: row.get::<_, Option<Timestamp>>("failing_since").map(token_failure),
            has_authentication: row.get("has_authentication"),
            certificate_ends_at: row.get("certificate_ends_at"),
            rules: None,
            changes: changes.iter().filter(is_about).map(change).collect(),
            delivery: delivery(row, is_paused)?,
            attempts,
            backlog: row.get::<_, Option<Timestamp>>("backlog_since").map(backlog),
        },
    })
}

fn delivery(row: &Row, is_paused: bool) -> Result<Option<DeliveryFacts>, StoreError> {
    let Some(word) = row.get::<_, Option<&str>>("state") else { return Ok(None) };
    let id = DeliveryId(row.get("delivery_id"));
    let corrupt = |what: String| StoreError::corrupt("deliveries", format!("{id}: {what}"));
    let state = State::parse(word).ok_or_else(|| corrupt(format!("state {word:?}")))?;
    let reason: Option<&str> = row.get("reason");
    Ok(Some(DeliveryFacts {
        id,
        state: if state == State::Queued && is_paused { State::Held } else { state },
        queued: reason.and_then(QueueReason::parse),
        failed: reason.and_then(FailureReason::parse),
        since: row.get("since"),
        due_at: row.get("due_at"),
        expires_at: row.get("expires_at"),
        first_in_order: row.get::<_, Option<Uuid>>("first_in_order").map(DeliveryId),
        parked_by: row.get::<_, Option<Uuid>>("parked_by").map(DeliveryId),
        replay: row.get::<_, Option<Uuid>>("replay_id").map(ReplayId),
    }))
}

fn attempt(row: &Row) -> Result<AttemptFacts, StoreError> {
    let (code, status): (&str, Option<i32>) = (row.get("outcome"), row.get("status"));
    let outcome = Outcome::of_record(code, status.and_then(|status| u16::try_from(status).ok()));
    Ok(AttemptFacts {
        number: row.get::<_, i32>("attempt").cast_unsigned(),
        started_at: row.get("started_at"),
        duration_ms: row.get("duration_ms"),
        outcome: outcome.ok_or_else(|| StoreError::corrupt("attempts", format!("outcome {code:?} {status:?}")))?,
        error: row.get("error"),
        url: row.get("url"),
        digest: row.get("digest"),
    })
}
