//! Unrouted messages, which matched no binding by a fault of the topology. Declares the topology again, and sends the
//! messages on.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{BrokerSettings, Incoming, encode_rerouted};
use fanfare_service::crash_point;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, metric};

/// Time for which a declaration counts as valid, and rest of a message that comes back after a declaration. If a
/// binding is removed again and again, messages would otherwise circle at the broker's full speed.
const BELIEVED: Duration = Duration::from_secs(5);

/// Wait after a failed declaration.
const AGAIN: Duration = Duration::from_secs(1);

/// Sends the messages of the unrouted queue on, until `stop`.
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
        // The broker redelivers the un-acked message.
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
