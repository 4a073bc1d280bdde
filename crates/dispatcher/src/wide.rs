//! Events with very many endpoints: their deliveries are written and their claims confirmed in chunks,
//! and none is attempted from the event's message.

use fanfare_domain::{
    application::EndpointStatus,
    claim::Claim,
    delivery::{DeferralReason, State},
    ids::DeliveryId,
    moment::later,
};
use fanfare_service::crash_point;
use fanfare_store::NewDelivery;
use futures_util::future::join_all;

use crate::{
    database::Database,
    events::Planned,
    metric,
    settle::{Settlement, Settler},
};

/// Deliveries that are written in one commit.
const CHUNK: usize = 500;

/// Writes the deliveries of an event that has been persisted without them, publishes their claims, marks
/// the event as fanned out, and ends its message. Interrupted anywhere, it is done again as a whole from
/// the message that then comes again: rows that are there stay, and a second claim on one is stale.
pub(crate) async fn fan_out(database: &Database, settler: &Settler, planned: Planned) {
    let Planned { message, new, endpoints, expiry, .. } = planned;
    let (event, application, accepted_at) = (new.event.id, new.event.application, new.accepted_at);
    let now = database.now();
    let deliveries: Vec<NewDelivery> = endpoints
        .iter()
        .map(|endpoint| {
            let id = DeliveryId::derive(accepted_at, event, endpoint.id);
            let (state, reason, due) = match endpoint.status {
                EndpointStatus::Enabled => (State::Waiting, Some(DeferralReason::WideFanOut.as_str()), Some(now)),
                EndpointStatus::Paused => (State::Held, None, None),
                EndpointStatus::Disabled => (State::Skipped, None, None),
            };
            let expires_at = later(now, endpoint.policy.lifetime(expiry));
            NewDelivery { id, endpoint: endpoint.id, state, reason, due, taking: None, deferrals: 0, expires_at }
        })
        .collect();
    let count = |state| deliveries.iter().filter(|one| one.state == state).count() as u64;
    let reason = DeferralReason::WideFanOut.as_str();
    metrics::counter!(metric::DEFERRALS, "reason" => reason).increment(count(State::Waiting));
    metrics::counter!(metric::DELIVERIES, "state" => "skipped", "reason" => "").increment(count(State::Skipped));
    crash_point("wide.persisted");
    for chunk in deliveries.chunks(CHUNK) {
        let planted = database
            .until_answered("fanning out an event", || database.store.plant(event, application, accepted_at, chunk))
            .await;
        if let Err(error) = planted.result {
            tracing::error!(%error, %event, "cannot write an event's deliveries; its message will come again");
            return settler.again(&Settlement::new(message, 1));
        }
        crash_point("wide.planted");
        let waiting = chunk.iter().filter(|one| one.state == State::Waiting);
        let claims: Vec<Claim> = waiting.map(|one| new.first_claim(one, now)).collect();
        join_all(claims.iter().map(|claim| settler.publish(claim, Some(new.event.traceparent)))).await;
        crash_point("wide.claimed");
    }
    let marked = database
        .until_answered("marking an event as fanned out", || database.store.mark_fanned_out(event, accepted_at))
        .await;
    match marked.result {
        Ok(()) => {
            crash_point("wide.marked");
            settler.end(message, Vec::new());
        }
        Err(error) => {
            tracing::error!(%error, %event, "cannot mark an event as fanned out; its message will come again");
            settler.again(&Settlement::new(message, 1));
        }
    }
}
