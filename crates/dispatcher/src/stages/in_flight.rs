//! A delivery that this process has leased, from its lease to the record of its attempt.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::{
    application::Endpoint,
    delivery::{BEGIN_WITHIN, QueueReason},
    event::EventType,
    ids::{ApplicationId, DeliveryId, EventId, LeaseId, ReplayId},
    traceparent::Traceparent,
};
use fanfare_store::{GiveBack, Lease, Leased, NewDelivery, Start};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::lanes::Permit;

/// A leased delivery, ready for its attempt.
pub(crate) struct InFlight {
    pub(crate) delivery: DeliveryId,
    pub(crate) attempt: u32,
    pub(crate) application: ApplicationId,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) event: EventId,
    pub(crate) event_type: EventType,
    pub(crate) trace: Option<Traceparent>,
    pub(crate) body: Bytes,
    /// The replay that requested it.
    pub(crate) replay: Option<ReplayId>,
    pub(crate) lease: LeaseId,
    /// Failed attempts that the endpoint answers for.
    pub(crate) failures: u32,
    pub(crate) expires_at: Timestamp,
    /// Its attempt must not begin later: another process could take the delivery over.
    pub(crate) begin_by: Instant,
    /// Lists show it already.
    pub(crate) is_listed: bool,
    /// `None` once its turn has begun.
    pub(crate) permit: Option<Permit>,
}

/// What the first attempts of an event's deliveries have in common.
pub(crate) struct FirstAttempts {
    pub(crate) application: ApplicationId,
    pub(crate) event: EventId,
    pub(crate) event_type: EventType,
    pub(crate) trace: Option<Traceparent>,
    pub(crate) body: Bytes,
}

/// What the first attempt of a delivery has got: its endpoint, and the right to send.
pub(crate) struct Direct {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) permit: Permit,
}

impl FirstAttempts {
    /// The first attempt of a delivery; `None` where it was written as queued or skipped.
    pub(crate) fn of(&self, delivery: &NewDelivery, direct: Direct, leased_at: Instant) -> Option<InFlight> {
        let Start::Sending(lease) = delivery.start else { return None };
        Some(InFlight {
            delivery: delivery.id,
            attempt: 1,
            application: self.application,
            endpoint: direct.endpoint,
            event: self.event,
            event_type: self.event_type.clone(),
            trace: self.trace,
            body: self.body.clone(),
            replay: None,
            lease: lease.id,
            failures: 0,
            expires_at: delivery.expires_at,
            begin_by: leased_at + BEGIN_WITHIN,
            is_listed: false,
            permit: Some(direct.permit),
        })
    }
}

impl InFlight {
    /// A delivery that was leased from a backlog; `None` where its payload cannot be read.
    pub(crate) fn drained(
        leased: Leased,
        endpoint: Arc<Endpoint>,
        lease: Lease,
        leased_at: Instant,
        permit: Permit,
    ) -> Option<Self> {
        let payload = leased.payload?;
        Some(Self {
            delivery: leased.delivery,
            attempt: leased.attempt,
            application: leased.application,
            endpoint,
            event: leased.event,
            event_type: payload.event_type,
            trace: payload.traceparent,
            body: Bytes::from(payload.body?),
            replay: leased.replay,
            lease: lease.id,
            failures: leased.failures,
            expires_at: leased.expires_at,
            begin_by: leased_at + BEGIN_WITHIN,
            is_listed: true,
            permit: Some(permit),
        })
    }

    /// The statement's row that gives the delivery back.
    pub(crate) fn give_back(&self, reason: QueueReason) -> GiveBack {
        GiveBack { delivery: self.delivery, lease: self.lease, reason }
    }
}
