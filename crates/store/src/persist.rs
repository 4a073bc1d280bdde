//! An event and its deliveries, written in one commit per batch.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fanfare_domain::{
    claim::Claim,
    delivery::State,
    event::{Content, Event},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, TakingId},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, bodies::StoredBody, rescue::Unfinished, store::milliseconds};

/// An event that is to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: Event,
    /// The moment of acceptance, in whole milliseconds.
    pub accepted_at: Timestamp,
    /// The rendered body.
    pub body: String,
    /// What of it may be looked at, where members are redacted: then the body itself is stored encrypted.
    pub redacted: Option<String>,
    /// What tells an event from another one that is published under the same key; none where members are redacted, as
    /// whoever knows the rest of the event could try out what a digest stands for.
    pub content: Option<Content>,
    /// How many endpoints matched.
    pub matches: usize,
    /// Whether `deliveries` are all of them.
    pub fanned_out: bool,
    /// Its deliveries.
    pub deliveries: Vec<NewDelivery>,
}

/// A delivery that is to be written, as its first attempt or its first wait.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Its id, derived from the event's acceptance, the event and the endpoint.
    pub id: DeliveryId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// `Sending`, `Waiting`, `Held` or `Skipped`.
    pub state: State,
    /// Why it is not sent at once.
    pub reason: Option<&'static str>,
    /// `Waiting`: when it is due.
    pub due: Option<Timestamp>,
    /// `Sending`: whose it is, and for how long.
    pub taking: Option<(TakingId, Duration)>,
    /// 1 where it was deferred.
    pub deferrals: u32,
    /// When it fails as expired, whatever it waits for.
    pub expires_at: Timestamp,
}

impl NewEvent {
    /// The claim that a delivery of it waits for which is written as waiting.
    pub fn first_claim(&self, delivery: &NewDelivery, now: Timestamp) -> Claim {
        Claim {
            delivery: delivery.id,
            event: self.event.id,
            application: self.event.application,
            endpoint: delivery.endpoint,
            attempt: 1,
            sequence: 1,
            due: delivery.due.unwrap_or(now),
            made: now,
            deferrals: delivery.deferrals,
        }
    }
}

/// What is in the database of an event that had been persisted before.
#[derive(Debug)]
pub struct PersistedEvent {
    /// The moment of acceptance that counts for every copy of it.
    pub accepted_at: Timestamp,
    /// Whether all its deliveries have been written.
    pub fanned_out: bool,
    /// Its deliveries that have not ended.
    pub unfinished: Vec<Unfinished>,
}

const PERSIST: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[],
                         $7::text[], $8::int[], $9::bool[], $10::text[], $11::bool[], $22::bytea[], $23::text[],
                         $24::bytea[])
    AS i(id, accepted_at, application_id, type, key, occurred_at, body, matches, fanned_out, traceparent, derived,
         content, body_key_name, body_ciphertext)
), keyed AS (
    INSERT INTO event_keys (event_id, accepted_at)
    SELECT id, accepted_at FROM input WHERE derived ORDER BY id
    ON CONFLICT DO NOTHING RETURNING event_id
), fresh AS (
    INSERT INTO events (id, accepted_at, application_id, type, key, occurred_at, body, matches, fanned_out, traceparent,
                        content, body_key_name, body_ciphertext)
    SELECT id, accepted_at, application_id, type, key, occurred_at, body, matches, fanned_out, traceparent, content,
           body_key_name, body_ciphertext
    FROM input WHERE NOT derived OR id IN (SELECT event_id FROM keyed) ORDER BY id
    ON CONFLICT DO NOTHING RETURNING id, accepted_at, application_id
), planted AS (
    INSERT INTO deliveries (id, accepted_at, event_id, application_id, endpoint_id, state, reason, attempt, sequence,
                            deferrals, due_at, taken_by, taken_at, finished_at, expires_at)
    SELECT d.id, fresh.accepted_at, fresh.id, fresh.application_id, d.endpoint_id, d.state, d.reason, 1, 1, d.deferrals,
           CASE d.state WHEN 'sending' THEN now() + d.hold_ms * interval '1 millisecond' WHEN 'held' THEN now()
                        ELSE d.due_at END,
           d.taken_by, CASE d.state WHEN 'sending' THEN now() END, CASE d.state WHEN 'skipped' THEN now() END,
           d.expires_at
    FROM unnest($12::uuid[], $13::uuid[], $14::uuid[], $15::text[], $16::text[], $17::timestamptz[], $18::uuid[],
                $19::bigint[], $20::int[], $21::timestamptz[])
    AS d(id, event_id, endpoint_id, state, reason, due_at, taken_by, hold_ms, deferrals, expires_at)
    JOIN fresh ON fresh.id = d.event_id
    ORDER BY d.id
)
SELECT id FROM fresh";

const PLANT: &str = "
INSERT INTO deliveries (id, accepted_at, event_id, application_id, endpoint_id, state, reason, attempt, sequence,
                        deferrals, due_at, finished_at, expires_at)
SELECT d.id, $1, $2, $3, d.endpoint_id, d.state, d.reason, 1, 1, 0, CASE d.state WHEN 'held' THEN now() ELSE d.due_at END,
       CASE d.state WHEN 'skipped' THEN now() END, d.expires_at
FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::timestamptz[], $9::timestamptz[])
AS d(id, endpoint_id, state, reason, due_at, expires_at)
ORDER BY d.id
ON CONFLICT DO NOTHING";

impl Store {
    /// Writes a batch of events, each with its deliveries, in one commit. Returns the ids of those that
    /// are new; the others had been persisted before, and nothing of them is written.
    ///
    /// The batch must be sorted by id, without a duplicate, or replicas deadlock.
    ///
    /// # Errors
    /// [`StoreError::Data`] when one row of the batch cannot be stored; then none is.
    pub async fn persist(&self, batch: &[&NewEvent]) -> Result<Vec<EventId>, StoreError> {
        let events = |column: fn(&NewEvent) -> Uuid| batch.iter().map(|new| column(new)).collect::<Vec<_>>();
        let ids = events(|new| new.event.id.0);
        let applications = events(|new| new.event.application.0);
        let accepted: Vec<Timestamp> = batch.iter().map(|new| new.accepted_at).collect();
        let types: Vec<&str> = batch.iter().map(|new| new.event.event_type.as_str()).collect();
        let keys: Vec<Option<&str>> = batch.iter().map(|new| new.event.key.as_deref()).collect();
        let occurred: Vec<Option<Timestamp>> = batch.iter().map(|new| new.event.occurred_at).collect();
        let stored = batch.iter().map(|new| StoredBody::of(new, &self.keyring)).collect::<Result<Vec<_>, _>>()?;
        let bodies: Vec<&str> = stored.iter().map(|body| body.shown).collect();
        let body_keys: Vec<Option<&str>> = stored.iter().map(StoredBody::key_name).collect();
        let body_ciphertexts: Vec<Option<&[u8]>> = stored.iter().map(StoredBody::ciphertext).collect();
        let matches: Vec<i32> = batch.iter().map(|new| i32::try_from(new.matches).unwrap_or(i32::MAX)).collect();
        let fanned_out: Vec<bool> = batch.iter().map(|new| new.fanned_out).collect();
        let traceparents: Vec<String> = batch.iter().map(|new| new.event.traceparent.to_string()).collect();
        let derived: Vec<bool> = batch.iter().map(|new| new.event.id.accepted_at().is_none()).collect();

        let pairs = || batch.iter().flat_map(|new| new.deliveries.iter().map(|one| (new.event.id, one)));
        let delivery_ids: Vec<Uuid> = pairs().map(|(_, one)| one.id.0).collect();
        let delivery_events: Vec<Uuid> = pairs().map(|(event, _)| event.0).collect();
        let endpoints: Vec<Uuid> = pairs().map(|(_, one)| one.endpoint.0).collect();
        let states: Vec<&str> = pairs().map(|(_, one)| one.state.as_str()).collect();
        let reasons: Vec<Option<&str>> = pairs().map(|(_, one)| one.reason).collect();
        let due: Vec<Option<Timestamp>> = pairs().map(|(_, one)| one.due).collect();
        let takings: Vec<Option<Uuid>> = pairs().map(|(_, one)| one.taking.map(|(taking, _)| taking.0)).collect();
        let holds: Vec<Option<i64>> = pairs().map(|(_, one)| one.taking.map(|(_, hold)| milliseconds(hold))).collect();
        let deferrals: Vec<i32> = pairs().map(|(_, one)| one.deferrals.cast_signed()).collect();

        let expiries: Vec<Timestamp> = pairs().map(|(_, one)| one.expires_at).collect();
        let contents: Vec<Option<&[u8]>> =
            batch.iter().map(|new| new.content.as_ref().map(|content| content.0.as_slice())).collect();

        let connection = self.inserter().await?;
        let statement = connection.prepare_cached(PERSIST).await?;
        let rows = connection
            .query(
                &statement,
                &[
                    &ids,
                    &accepted,
                    &applications,
                    &types,
                    &keys,
                    &occurred,
                    &bodies,
                    &matches,
                    &fanned_out,
                    &traceparents,
                    &derived,
                    &delivery_ids,
                    &delivery_events,
                    &endpoints,
                    &states,
                    &reasons,
                    &due,
                    &takings,
                    &holds,
                    &deferrals,
                    &expiries,
                    &contents,
                    &body_keys,
                    &body_ciphertexts,
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| EventId(row.get(0))).collect())
    }

    /// Writes a part of the deliveries of an event that has been persisted without them. Those that are
    /// there already stay as they are.
    ///
    /// # Errors
    /// As [`Store::persist`].
    pub async fn plant(
        &self,
        event: EventId,
        application: ApplicationId,
        accepted_at: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|one| one.id.0).collect();
        let endpoints: Vec<Uuid> = deliveries.iter().map(|one| one.endpoint.0).collect();
        let states: Vec<&str> = deliveries.iter().map(|one| one.state.as_str()).collect();
        let reasons: Vec<Option<&str>> = deliveries.iter().map(|one| one.reason).collect();
        let due: Vec<Option<Timestamp>> = deliveries.iter().map(|one| one.due).collect();
        let expiries: Vec<Timestamp> = deliveries.iter().map(|one| one.expires_at).collect();
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(PLANT).await?;
        connection
            .execute(
                &statement,
                &[&accepted_at, &event.0, &application.0, &ids, &endpoints, &states, &reasons, &due, &expiries],
            )
            .await?;
        Ok(())
    }

    /// Notes that all deliveries of an event have been written.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn mark_fanned_out(&self, event: EventId, accepted_at: Timestamp) -> Result<(), StoreError> {
        let statement = "UPDATE events SET fanned_out = true WHERE id = $1 AND accepted_at = $2";
        self.connection().await?.execute(statement, &[&event.0, &accepted_at]).await?;
        Ok(())
    }

    /// Which of these events, found to be persisted already, were persisted with other content: whoever
    /// published the copy has used a key twice.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn reused(&self, events: &[(EventId, Content)]) -> Result<HashSet<EventId>, StoreError> {
        let ids: Vec<Uuid> = events.iter().map(|(event, _)| event.0).collect();
        let accepted: Vec<Option<Timestamp>> = events.iter().map(|(event, _)| event.accepted_at()).collect();
        let contents: Vec<&[u8]> = events.iter().map(|(_, content)| content.0.as_slice()).collect();
        // Events of the release before this one have no content to compare.
        let statement =
            "SELECT i.id FROM unnest($1::uuid[], $2::timestamptz[], $3::bytea[]) AS i(id, accepted_at, content)
                         LEFT JOIN event_keys k ON k.event_id = i.id
                         JOIN events e ON e.id = i.id AND e.accepted_at = coalesce(i.accepted_at, k.accepted_at)
                         WHERE e.content <> i.content";
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(statement).await?;
        let rows = connection.query(&statement, &[&ids, &accepted, &contents]).await?;
        Ok(rows.iter().map(|row| EventId(row.get(0))).collect())
    }

    /// What there is of events that were found to be persisted already.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn persisted(&self, events: &[EventId]) -> Result<HashMap<EventId, PersistedEvent>, StoreError> {
        let mut found = HashMap::new();
        for &event in events {
            if let Some(persisted) = self.persisted_event(event).await? {
                found.insert(event, persisted);
            }
        }
        Ok(found)
    }

    async fn persisted_event(&self, event: EventId) -> Result<Option<PersistedEvent>, StoreError> {
        let connection = self.connection().await?;
        let accepted_at = match event.accepted_at() {
            Some(moment) => moment,
            None => {
                let statement = "SELECT accepted_at FROM event_keys WHERE event_id = $1";
                match connection.query_opt(statement, &[&event.0]).await? {
                    Some(row) => row.get(0),
                    None => return Ok(None),
                }
            }
        };
        let statement = "SELECT fanned_out FROM events WHERE id = $1 AND accepted_at = $2";
        let Some(row) = connection.query_opt(statement, &[&event.0, &accepted_at]).await? else { return Ok(None) };
        let unfinished = self.unfinished_of(&connection, event, accepted_at).await?;
        Ok(Some(PersistedEvent { accepted_at, fanned_out: row.get(0), unfinished }))
    }
}
