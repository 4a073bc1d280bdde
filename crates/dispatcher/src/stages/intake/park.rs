//! Parking: moves unreadable messages with a reason into the parked queue, and from there into a table.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{DELIVERY_LIMIT, Incoming, Parked, Unreadable, decode_parked, encode_parked};
use fanfare_domain::ids::ParkedId;
use fanfare_service::crash_point;
use fanfare_store::ParkedMessage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{context::Context, metric, stages::spans};

/// Rest of a message before the hand-back to the broker, if the database refuses the row.
const REST: Duration = Duration::from_secs(5);

/// Publishes an unreadable message to the parked queue, then acks the original and ends its span.
pub(crate) fn park(context: &Arc<Context>, message: Incoming, unreadable: Unreadable, span: Span) {
    spans::fail(&span, unreadable.reason);
    tracing::warn!(
        reason = unreadable.reason,
        routing_key = message.routing_key,
        message_id = message.message_id,
        bytes = message.size,
        "parking a message: {unreadable}"
    );
    metrics::counter!(metric::PARKED, "reason" => unreadable.reason).increment(1);
    let parking = Arc::clone(context);
    context.tasks.spawn(async move {
        let parked = encode_parked(&parking.topology, &message, &unreadable);
        parking.publisher.publish_until_confirmed(&parked).await;
        crash_point("park.confirmed");
        message.ack();
        drop(span);
    });
}

/// Moves the messages of the parked queue into the table, until `stop`. A look into a queue would move its messages.
pub(crate) async fn keep(context: Arc<Context>, mut messages: mpsc::Receiver<Incoming>, stop: CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        match decode_parked(&context.topology, &message) {
            Parked::PutBack(again) => {
                tracing::warn!(
                    message_id = message.message_id,
                    "putting back a message whose consumers died, to be handled alone"
                );
                context.publisher.publish_until_confirmed(&again).await;
                crash_point("park.returned");
            }
            Parked::Keep { reason, message: text, routing_key, origin, size } => {
                if reason == DELIVERY_LIMIT {
                    metrics::counter!(metric::PARKED, "reason" => DELIVERY_LIMIT).increment(1);
                }
                let parked = ParkedMessage {
                    id: ParkedId::new(context.now(), rand::random()),
                    reason,
                    message: text,
                    origin,
                    routing_key,
                    message_id: message.message_id.clone(),
                    headers: message.headers_as_json(),
                    body: message.body.clone(),
                    bytes: size,
                };
                let database = &context.database;
                let kept = database.retry_until_available("parking a message", || database.store.park(&parked)).await;
                if let Err(error) = kept.result {
                    tracing::error!(
                        %error, parked = %parked.id,
                        "cannot store a parked message; the broker redelivers the message"
                    );
                    context.tasks.spawn(async move {
                        tokio::time::sleep(REST).await;
                        message.hand_back();
                    });
                    continue;
                }
            }
        }
        crash_point("park.kept");
        message.ack();
    }
}
