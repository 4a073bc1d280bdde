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
use fanfare_store::{GiveBack, Lease, Leased};
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
