//! A delivery that this process has taken, from its taking to the record of what came of it.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::{
    application::Endpoint,
    claim::Claim,
    delivery::{BEGIN_WITHIN, hold, hold_claim_due},
    event::EventType,
    ids::{ApplicationId, DeliveryId, EventId, ReplayId, TakingId},
    moment::later,
    traceparent::Traceparent,
};
use fanfare_store::{Moved, NewEvent};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{lanes::Ticket, settle::Settlement};

/// A delivery that this process has taken, on its way to its attempt.
pub(crate) struct Assignment {
    pub(crate) delivery: DeliveryId,
    pub(crate) event: EventId,
    pub(crate) event_type: EventType,
    pub(crate) application: ApplicationId,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) attempt: u32,
    pub(crate) sequence: u32,
    pub(crate) taking: TakingId,
    pub(crate) failures: u32,
    pub(crate) deferrals: u32,
    /// When it fails as expired, whatever it waits for.
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) trace: Option<Traceparent>,
    /// The replay that it belongs to.
    pub(crate) replay: Option<ReplayId>,
    pub(crate) body: Bytes,
    /// Later than this its attempt must not begin: another process could take it over.
    pub(crate) begin_by: Instant,
    /// When another process may take it over.
    pub(crate) hold_until: Instant,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) settlement: Settlement,
}

impl Assignment {
    /// The first attempt of a delivery that was persisted as sending.
    pub(crate) fn first(
        new: &NewEvent,
        position: usize,
        body: &Bytes,
        (endpoint, ticket): (Arc<Endpoint>, Ticket),
        taken_at: Instant,
        settlement: Settlement,
    ) -> Option<Self> {
        let delivery = &new.deliveries[position];
        let (taking, hold) = delivery.taking?;
        Some(Self {
            delivery: delivery.id,
            event: new.event.id,
            event_type: new.event.event_type.clone(),
            application: new.event.application,
            endpoint,
            attempt: 1,
            sequence: 1,
            taking,
            failures: 0,
            deferrals: 0,
            expires_at: Some(delivery.expires_at),
            trace: Some(new.event.traceparent),
            replay: None,
            body: body.clone(),
            begin_by: taken_at + BEGIN_WITHIN,
            hold_until: taken_at + hold,
            ticket: Some(ticket),
            settlement,
        })
    }

    /// The attempt of a delivery that was taken for a claim.
    pub(crate) fn next(
        claim: &Claim,
        moved: Moved,
        body: String,
        (taking, taken_at): (TakingId, Instant),
        (endpoint, ticket): (Arc<Endpoint>, Ticket),
        settlement: Settlement,
    ) -> Self {
        let hold = hold(endpoint.policy.timeout);
        Self {
            delivery: claim.delivery,
            event: claim.event,
            event_type: moved.event_type,
            application: claim.application,
            endpoint,
            attempt: moved.attempt,
            sequence: moved.sequence,
            taking,
            failures: moved.failures,
            deferrals: claim.deferrals,
            expires_at: moved.expires_at,
            trace: moved.traceparent,
            replay: moved.replay,
            body: Bytes::from(body),
            begin_by: taken_at + BEGIN_WITHIN,
            hold_until: taken_at + hold,
            ticket: Some(ticket),
            settlement,
        }
    }

    /// The claim by which another process takes the delivery over when its hold has ended and nothing came of it.
    pub(crate) fn hold_claim(&self, now: Timestamp) -> Claim {
        let held_until = later(now, self.hold_until.saturating_duration_since(Instant::now()));
        let due = hold_claim_due(held_until, now);
        Claim { sequence: self.sequence, ..self.claim(self.attempt, due, self.deferrals, now) }
    }

    /// The claim that follows this one: another attempt, or the same one later.
    pub(crate) fn claim(&self, attempt: u32, due: Timestamp, deferrals: u32, now: Timestamp) -> Claim {
        Claim {
            delivery: self.delivery,
            event: self.event,
            application: self.application,
            endpoint: self.endpoint.id,
            attempt,
            sequence: self.sequence + 1,
            due,
            made: now,
            deferrals,
        }
    }
}
