//! Messages that no binding wanted: a fault of the topology, which is declared again before they are sent on.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{BrokerSettings, Incoming, encode_rerouted};
use fanfare_service::crash_point;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, metric};

/// For how long a declaration is believed to hold, and how long one that did not hold is left alone: whatever
/// unbinds a queue again and again would otherwise have messages circle as fast as the broker can.
const BELIEVED: Duration = Duration::from_secs(5);

/// How long a declaration that failed waits for the next.
const AGAIN: Duration = Duration::from_secs(1);

/// Sends on what comes from the unrouted queue, until `stop`.
pub(crate) async fn send_on(
    context: Arc<Context>,
    mut messages: mpsc::Receiver<Incoming>,
    broker: BrokerSettings,
    stop: CancellationToken,
) {
    let mut declared: Option<Instant> = None;
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        metrics::counter!(metric::UNROUTED).increment(1);
        let declaring = async {
            if message.was_rerouted() {
                tokio::time::sleep(BELIEVED).await;
            }
            if declared.is_none_or(|declared| declared.elapsed() > BELIEVED) {
                declare(&broker, &message).await;
                declared = Some(Instant::now());
            }
        };
        // What is not acked comes again.
        if stop.run_until_cancelled(declaring).await.is_none() {
            return;
        }
        let again = encode_rerouted(&context.topology, &message);
        context.publisher.publish_until_confirmed(&again).await;
        crash_point("unrouted.confirmed");
        message.ack();
    }
}

async fn declare(broker: &BrokerSettings, message: &Incoming) {
    tracing::error!(
        routing_key = message.routing_key,
        message_id = message.message_id,
        "a message went to no queue: a binding or a queue was gone; declaring the topology again and sending it on"
    );
    while let Err(error) = broker.declare().await {
        tracing::warn!(%error, "cannot declare the topology; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}
