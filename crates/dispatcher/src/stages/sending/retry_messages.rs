//! Retry messages: published into the delay queues, after the records of the failed attempts are committed.

use std::{sync::Arc, time::Duration};

use fanfare_broker::encode_retry;
use fanfare_domain::delivery::retry::RetryMessage;
use fanfare_service::crash_point;

use crate::{context::Context, metric, stages::InFlight};

/// Deadline for the broker's confirm. Recovery queues the delivery of an unconfirmed message 10 s after the due time.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

/// A retry message, with the first delay. The message holds the further delays.
pub(crate) struct NextRetry {
    message: RetryMessage,
    delay: Option<Duration>,
}

impl NextRetry {
    /// Creates the retry of a failed attempt, with the delays of `plan`.
    pub(crate) fn new(in_flight: &InFlight, plan: Vec<Duration>) -> Self {
        let mut delays = plan.into_iter();
        let delay = delays.next();
        let message = RetryMessage {
            delivery: in_flight.delivery,
            application: in_flight.application,
            endpoint: in_flight.endpoint.id,
            attempt: in_flight.attempt + 1,
            then: delays.map(|delay| delay.as_secs()).collect(),
        };
        Self { message, delay }
    }
}

/// Publishes a retry in a task beside the stages: no stage waits for the confirm.
pub(crate) fn publish(context: &Arc<Context>, retry: NextRetry) {
    let NextRetry { message, delay } = retry;
    let publishing = Arc::clone(context);
    context.tasks.spawn(async move {
        send(&publishing, &message, delay).await;
        crash_point("retry.confirmed");
    });
}

/// Publishes a retry into the next delay queue. A broken queue only makes the retry late: recovery queues the delivery.
pub(crate) async fn send(context: &Context, message: &RetryMessage, delay: Option<Duration>) {
    let encoded = match encode_retry(&context.topology, message, delay) {
        Ok(encoded) => encoded,
        Err(error) => {
            return tracing::error!(
                %error, delivery = %message.delivery,
                "cannot encode a retry message; recovery queues the delivery"
            );
        }
    };
    let confirmed = context.publisher.publish_until_confirmed(&encoded);
    if tokio::time::timeout(CONFIRM_WITHIN, confirmed).await.is_err() {
        metrics::counter!(metric::UNCONFIRMED_RETRIES).increment(1);
        tracing::warn!(
            delivery = %message.delivery,
            "the broker did not confirm a retry message in time; recovery queues the delivery when overdue"
        );
    }
}
