//! Attempts: wait for a slot in the lane, sign, POST, decide.

use std::{convert::Infallible, sync::Arc, time::Duration};

use fanfare_domain::{
    delivery::{
        FailureReason, QueueReason,
        outcome::Outcome,
        policy::{Decision, Policy, asked_rest},
    },
    dialect::Sending,
    endpoint::{Endpoint, EndpointStatus},
    ids::{AttemptId, DeliveryId},
    time::saturating_add,
};
use fanfare_outbound::{Client, EgressUnavailable, Exchange, Request};
use fanfare_service::{crash_point, trace_of};
use fanfare_store::{AttemptRecord, GiveBack, NextState};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    access_tokens::LiveToken,
    context::Context,
    lanes::{RecordPermit, Turn},
    metric,
    stages::{InFlight, sending::retry_messages::NextRetry, spans},
};

/// Bytes kept of a successful response's body. An endpoint that answers 64 KiB of HTML to each event would otherwise
/// fill the disk.
const MAX_KEPT_OF_SUCCESS: usize = 1024;

/// Status of a receiver that does not accept the token.
const UNAUTHORIZED: u16 = 401;

/// Result of a leased delivery.
pub(crate) enum AttemptResult {
    /// The delivery was sent. The permit ends with the record of the attempt.
    Sent {
        record: Box<AttemptRecord>,
        /// Retry to publish after the record.
        retry: Option<NextRetry>,
        /// Reason to disable the endpoint.
        disables: Option<FailureReason>,
        permit: RecordPermit,
        /// True if the next delivery of the ordering key may be due.
        is_in_order: bool,
    },
    /// The delivery was not sent.
    GivenBack(GiveBack),
}

pub(crate) struct Attempts {
    pub(crate) context: Arc<Context>,
    pub(crate) client: Client,
    pub(crate) results: mpsc::Sender<AttemptResult>,
    /// Deliveries with a slow attempt, for lists.
    pub(crate) slow: mpsc::UnboundedSender<DeliveryId>,
}

/// Attempts deliveries until the channel closes, each in a separate task. From `stop` on, gives back each delivery
/// whose request has not begun.
pub(crate) async fn run(attempts: Attempts, mut deliveries: mpsc::Receiver<InFlight>, stop: CancellationToken) {
    let attempts = Arc::new(attempts);
    let tasks = TaskTracker::new();
    while let Some(in_flight) = deliveries.recv().await {
        tasks.spawn(Arc::clone(&attempts).process(in_flight, stop.clone()));
    }
    tasks.close();
    tasks.wait().await;
}

impl Attempts {
    async fn process(self: Arc<Self>, mut in_flight: InFlight, stop: CancellationToken) {
        // The attempt runs: the next drained attempt may begin.
        in_flight.starting = None;
        let turn = stop.run_until_cancelled(self.turn(&mut in_flight)).await;
        let result = match turn.filter(|_| !stop.is_cancelled()).unwrap_or(Err(QueueReason::ShuttingDown)) {
            Ok(turn) => self.attempt(&in_flight, turn).await,
            Err(reason) => Err(reason),
        };
        let result = result.unwrap_or_else(|reason| {
            metrics::counter!(metric::QUEUED, "reason" => reason.as_str()).increment(1);
            AttemptResult::GivenBack(in_flight.give_back(reason))
        });
        let _ = self.results.send(result).await;
    }

    /// Waits for a slot in the lane. The error is the reason to give the delivery back.
    async fn turn(&self, in_flight: &mut InFlight) -> Result<Turn, QueueReason> {
        let permit = in_flight.permit.take().ok_or(QueueReason::LaneFull)?;
        let turn = tokio::time::timeout_at(in_flight.begin_by, permit.turn()).await;
        let turn = turn.unwrap_or(Err(QueueReason::LaneFull))?;
        // A slot granted at once may still come too late: the lease statement may have taken long.
        if Instant::now() > in_flight.begin_by {
            return Err(QueueReason::LaneFull);
        }
        // The endpoint may have changed while the delivery waited, or during an outage of the database.
        let endpoint = self.context.endpoint(in_flight.application, in_flight.endpoint.id);
        match endpoint {
            Some(endpoint) if endpoint.status == EndpointStatus::Enabled => in_flight.endpoint = endpoint,
            Some(endpoint) if endpoint.status == EndpointStatus::Paused => return Err(QueueReason::Paused),
            _ => return Err(QueueReason::Backlog),
        }
        Ok(turn)
    }

    /// Attempts. The error is the reason to give the delivery back: nothing was sent.
    async fn attempt(&self, in_flight: &InFlight, turn: Turn) -> Result<AttemptResult, QueueReason> {
        let token = self.token(&in_flight.endpoint)?;
        let passed = self.context.lanes.egress.begin().ok_or(QueueReason::EgressUnavailable)?;
        let slowly = async {
            turn.until_slow().await;
            if !in_flight.is_listed {
                let _ = self.slow.send(in_flight.delivery);
            }
            std::future::pending::<Infallible>().await
        };
        // The answer may take a minute, and other deliveries wait for the probe.
        let connected = async {
            if passed.is_probe() {
                self.client.connected().await;
                passed.reached();
            }
            std::future::pending::<Infallible>().await
        };
        let sent = tokio::select! {
            biased;
            // First: the wait begins before the attempt connects.
            never = connected => match never {},
            sent = self.send(in_flight, token.as_ref()) => sent,
            never = slowly => match never {},
        };
        let (record, retry) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                passed.failed(&error.to_string());
                return Err(QueueReason::EgressUnavailable);
            }
        };
        if let Some(token) = token.filter(|_| record.outcome.status() == Some(UNAUTHORIZED)) {
            self.context.lanes.tokens.refused(in_flight.endpoint.id, &token);
        }
        // No sign of the network.
        if !matches!(record.outcome, Outcome::TimedOut | Outcome::NotSendable | Outcome::AddressForbidden) {
            passed.reached();
        }
        let is_failure = match record.next {
            NextState::Delivered => false,
            NextState::Failed(reason) => !reason.is_refusal(),
            NextState::Scheduled { .. } => true,
        };
        let permit = turn.end(record.outcome, is_failure, asked_rest(record.outcome, self.context.now()));
        let disables = in_flight.endpoint.policy.disables(record.outcome);
        let is_in_order = in_flight.endpoint.fifo.is_some() && in_flight.sequence.is_some();
        Ok(AttemptResult::Sent { record: Box::new(record), retry, disables, permit, is_in_order })
    }

    /// The token of an endpoint with OAuth 2.0. The error is the reason to give the delivery back.
    fn token(&self, endpoint: &Endpoint) -> Result<Option<LiveToken>, QueueReason> {
        let Some((_, version)) = endpoint.oauth2() else { return Ok(None) };
        let live = self.context.lanes.tokens.live(endpoint, version);
        live.map(Some).ok_or(QueueReason::TokenUnavailable)
    }

    /// Makes the attempt, and decides the next state.
    async fn send(
        &self,
        in_flight: &InFlight,
        token: Option<&LiveToken>,
    ) -> Result<(AttemptRecord, Option<NextRetry>), EgressUnavailable> {
        let InFlight { endpoint, body, .. } = in_flight;
        let context = &self.context;
        let started_at = context.now();
        let span = spans::attempt(in_flight);
        let trace = trace_of(&span).or_else(|| in_flight.trace.clone());
        let sending = Sending {
            event: in_flight.event,
            event_type: &in_flight.event_type,
            application: in_flight.application,
            delivery: in_flight.delivery,
            attempt: in_flight.attempt,
            replay: in_flight.replay,
            sequence: in_flight.sequence.as_ref(),
            trace: trace.as_ref(),
            at: started_at,
        };
        if in_flight.attempt == 1 {
            let lag = Duration::try_from(started_at.duration_since(in_flight.ready_at)).unwrap_or_default();
            let queued = if in_flight.is_listed { "yes" } else { "no" };
            metrics::histogram!(metric::FIRST_ATTEMPT_LAG, "queued" => queued).record(lag);
        }
        let request = match in_flight.is_test {
            // No digest counts a test.
            true => Request::of_delivery(
                &Endpoint { digest_from: None, ..Endpoint::clone(endpoint) },
                &sending,
                body.clone(),
            ),
            false => Request::of_delivery(endpoint, &sending, body.clone()),
        };
        let request = match token {
            Some(token) => request.with_token(token.header.clone()),
            None => request,
        };
        metrics::gauge!(metric::ATTEMPTS_IN_FLIGHT).increment(1);
        let exchange = self.client.post(request).instrument(span.clone()).await;
        metrics::gauge!(metric::ATTEMPTS_IN_FLIGHT).decrement(1);
        let exchange = exchange?;
        crash_point("attempt.answered");
        context.attempted.add(1);
        metrics::counter!(metric::ATTEMPTS, "outcome" => exchange.outcome.code()).increment(1);
        metrics::histogram!(metric::ATTEMPT_SECONDS).record(exchange.duration);
        spans::end_attempt(&span, exchange.outcome);
        let now = context.now();
        let decide = if token.is_some() { Policy::decide_with_token } else { Policy::decide };
        let expires_at = Some(in_flight.expires_at);
        let decision = decide(&endpoint.policy, exchange.outcome, in_flight.failures, expires_at, now, rand::random());
        log(in_flight, &exchange, decision);
        let (next, retry) = self.next(in_flight, decision, now);
        Ok((record(in_flight, started_at, exchange, next), retry))
    }

    /// Returns the state after the attempt. A retry is due after all delays of the retry message.
    fn next(&self, in_flight: &InFlight, decision: Decision, now: Timestamp) -> (NextState, Option<NextRetry>) {
        match decision {
            Decision::Delivered => (NextState::Delivered, None),
            Decision::Failed(reason) => (NextState::Failed(reason), None),
            Decision::Retry { due } => {
                let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
                let plan = self.context.topology.plan(wait);
                let due = saturating_add(now, plan.iter().sum());
                (NextState::Scheduled { due }, Some(NextRetry::new(in_flight, plan)))
            }
        }
    }
}

fn log(in_flight: &InFlight, exchange: &Exchange, decision: Decision) {
    if decision == Decision::Delivered {
        return;
    }
    let attempt = AttemptId::derive(in_flight.delivery, in_flight.attempt);
    tracing::info!(
        delivery = %in_flight.delivery,
        endpoint = %in_flight.endpoint.id,
        %attempt,
        number = in_flight.attempt,
        outcome = exchange.outcome.code(),
        status = exchange.outcome.status(),
        error = exchange.error,
        ?decision,
        "an attempt failed"
    );
}

fn record(in_flight: &InFlight, started_at: Timestamp, exchange: Exchange, next: NextState) -> AttemptRecord {
    // Redacted before the cut: a member is found in the whole body only.
    let redacted = in_flight.endpoint.redaction.redact_response(&exchange.response_body);
    let mut response_body = redacted.unwrap_or_else(|| exchange.response_body.to_vec());
    if matches!(next, NextState::Delivered) {
        response_body.truncate(MAX_KEPT_OF_SUCCESS);
    }
    AttemptRecord {
        delivery: in_flight.delivery,
        event: in_flight.event,
        application: in_flight.application,
        endpoint: in_flight.endpoint.id,
        attempt: in_flight.attempt,
        lease: in_flight.lease,
        url: in_flight.endpoint.url.to_string(),
        started_at,
        duration: exchange.duration,
        outcome: exchange.outcome,
        response_headers: exchange.response_headers_as_json(),
        error: exchange.error,
        response_body,
        next,
        notifies_owner: in_flight.endpoint.notifies_owner,
        is_test: in_flight.is_test,
    }
}
