//! Daily digests: tells each webhook that asks for them how many deliveries a day had, a quarter of an hour after the
//! day's end in UTC. A digest is counted and written webhook by webhook: a run continues an interrupted run.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    application::Application,
    delivery::digest::{self, DayEntry},
    endpoint::Endpoint,
    event::{Event, EventType},
    ids::{DeliveryId, EndpointId, EventId},
    time::saturating_add,
};
use fanfare_service::crash_point;
use fanfare_store::{DueDigest, Job, NewDelivery, NewDigest, NewEvent, StoreError};
use jiff::{Timestamp, civil::Date};
use tokio_util::sync::CancellationToken;

use super::{Schedule, first_state};
use crate::{context::Context, stages::intake::events::count_finished};

/// Interval of looks for due digests.
const EVERY: Duration = Duration::from_secs(10);

/// Deadline of a run. A day with a million deliveries takes seconds.
const RUN_TIMEOUT: Duration = Duration::from_secs(3600);

/// Maximum of webhooks in a look.
const LOOK: usize = 100;

pub(crate) struct Digests {
    pub(crate) context: Arc<Context>,
}

impl Digests {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let schedule = Schedule::new(self.context.database.clone(), Job::Digests, EVERY, stop);
        while let Some(lock) = schedule.next().await {
            schedule.run_within(RUN_TIMEOUT, lock, self.tell_due()).await;
        }
    }

    /// Tells all due digests. A webhook with a lasting error stops no other webhook.
    async fn tell_due(&self) -> Result<(), StoreError> {
        let store = &self.context.database.store;
        let day = digest::last_ended(self.context.now());
        let mut after = EndpointId::LEAST;
        loop {
            let due = store.due_digests(day, after, LOOK).await?;
            let Some(last) = due.last() else { return Ok(()) };
            after = last.endpoint;
            for webhook in &due {
                match self.tell(webhook, day).await {
                    Err(error) if !error.may_pass() => {
                        tracing::error!(%error, webhook = %webhook.endpoint, "cannot tell a digest; trying again");
                    }
                    told => told?,
                }
            }
        }
    }

    /// Tells a webhook the last ended day, and each earlier day that was not told, or that has further deliveries.
    async fn tell(&self, due: &DueDigest, day: Date) -> Result<(), StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        let Some(application) = context.directory.application(due.application) else { return Ok(()) };
        // The configuration of this process may be older than the webhook: the next look tells the digest.
        let Some(endpoint) = application.endpoint(due.endpoint) else { return Ok(()) };
        let possible = digest::days(due.from, day, store.line().await?);
        let horizon = store.horizon().await?;
        let mut days: Vec<DayEntry> = Vec::new();
        for untold in store.untold_days(due.endpoint, &possible, horizon).await? {
            days.push(store.count_day(due.endpoint, untold, horizon).await?);
        }
        crash_point("digest.counted");
        let Some(event) = self.event(&application, endpoint, &days) else {
            tracing::error!(webhook = %due.endpoint, "the dialect cannot render a digest; trying again");
            return Ok(());
        };
        let new = NewDigest { endpoint: due.endpoint, day, days: &days, horizon, event: &event };
        let Some(persisted) = store.tell_digest(context.process(), &new).await? else { return Ok(()) };
        crash_point("digest.told");
        count_finished(&event.deliveries);
        context.touched(&persisted.backlogs, false);
        Ok(())
    }

    /// The event of a digest, with its delivery; `None` for data that the dialect cannot render.
    fn event(&self, application: &Application, endpoint: &Endpoint, days: &[DayEntry]) -> Option<NewEvent> {
        let now = self.context.now();
        let data = digest::data(endpoint.id, days).ok()?;
        let id = EventId::new(application.id, now, rand::random());
        let event = Event::new(id, application.id, EventType::parse(digest::EVENT_TYPE).ok()?, data);
        let accepted_at = event.id.accepted_at()?;
        let body = application.dialect.render_body(&event, accepted_at).ok()?;
        let deliveries = vec![self.delivery(endpoint, &event, accepted_at)];
        Some(NewEvent { matches: 1, deliveries, ..NewEvent::of(application, event, accepted_at, body) })
    }

    /// The delivery of a digest.
    fn delivery(&self, endpoint: &Endpoint, event: &Event, accepted_at: Timestamp) -> NewDelivery {
        NewDelivery {
            id: DeliveryId::derive(accepted_at, event.id, endpoint.id),
            endpoint: endpoint.id,
            start: first_state(endpoint),
            expires_at: saturating_add(self.context.now(), endpoint.policy.lifetime(self.context.expiry)),
            in_feed: true,
            // In the dialect's form, whatever the template: the receiver looks for the members of a digest.
            shaped: None,
        }
    }
}
