//! Attempts: wait for the turn in the lane, sign, POST, decide.

use std::{convert::Infallible, sync::Arc, time::Duration};

use fanfare_domain::{
    deferral::deferral_wait,
    delivery::{DeferralReason, FailureReason},
    dialect::Sending,
    ids::AttemptId,
    moment::later,
    policy::Decision,
};
use fanfare_outbound::{Client, Exchange, Request};
use fanfare_service::{crash_point, parent_of};
use fanfare_store::{AttemptRecord, GiveBack, NextState};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    assignment::Assignment,
    database::Database,
    lanes::{Ticket, Turn, Unrecorded},
    metric,
    rates::Rates,
    settle::Settler,
};

/// A delivery whose turn is over.
pub(crate) struct Finished {
    pub(crate) assignment: Assignment,
    pub(crate) how: FinishedAs,
    /// Ends when it is recorded.
    pub(crate) unrecorded: Option<Unrecorded>,
}

/// How it went.
pub(crate) enum FinishedAs {
    /// It was sent.
    Attempted(AttemptRecord),
    /// It was not.
    GivenBack(GiveBack),
}

/// What the stage needs.
pub(crate) struct Attempts {
    pub(crate) database: Database,
    pub(crate) client: Client,
    pub(crate) rates: Rates,
    pub(crate) settler: Settler,
    pub(crate) finished: mpsc::Sender<Finished>,
}

/// Attempts what comes in, each in a task of its own, until nothing more does. From `stop` on, what is
/// not yet being sent is given back; what is, is finished.
pub(crate) async fn run(attempts: Attempts, mut assignments: mpsc::Receiver<Assignment>, stop: CancellationToken) {
    let attempts = Arc::new(attempts);
    let tasks = TaskTracker::new();
    while let Some(assignment) = assignments.recv().await {
        let span = tracing::info_span!(
            "attempt",
            delivery = %assignment.delivery,
            endpoint = %assignment.endpoint.id,
            attempt = assignment.attempt,
            outcome = tracing::field::Empty,
        );
        if let Some(trace) = assignment.trace {
            parent_of(&span, trace);
        }
        tasks.spawn(Arc::clone(&attempts).process(assignment, stop.clone()).instrument(span));
    }
    tasks.close();
    tasks.wait().await;
}

impl Attempts {
    async fn process(self: Arc<Self>, mut assignment: Assignment, stop: CancellationToken) {
        let ticket = assignment.ticket.take();
        let turn = stop.run_until_cancelled(self.turn(&assignment, ticket)).await;
        let stopping = || Err((DeferralReason::ShuttingDown, Duration::ZERO));
        let finished = match turn.filter(|_| !stop.is_cancelled()).unwrap_or_else(stopping) {
            Ok(turn) => self.attempt(assignment, turn).await,
            Err((reason, wait)) => give_back(assignment, reason, later(self.database.now(), wait)),
        };
        let _ = self.finished.send(finished).await;
    }

    /// Waits for the turn, or says why it does not come in time, and how long to put the delivery off.
    async fn turn(&self, assignment: &Assignment, ticket: Option<Ticket>) -> Result<Turn, (DeferralReason, Duration)> {
        let later = |reason| (reason, deferral_wait(assignment.deferrals + 1, rand::random()));
        let full = || later(DeferralReason::LaneFull);
        let ticket = ticket.ok_or_else(full)?;
        let endpoint = &assignment.endpoint;
        let turn = async {
            if let Some(rate) = endpoint.policy.rate_per_second {
                let place = self.rates.place(endpoint.id, rate).await;
                place.map_err(|wait| (DeferralReason::RateLimited, wait))?;
            }
            ticket.turn().await.map_err(later)
        };
        let turn = tokio::time::timeout_at(assignment.begin_by, turn).await.unwrap_or_else(|_| Err(full()))?;
        // A turn that was to be had at once may still come too late.
        if Instant::now() > assignment.begin_by { Err(full()) } else { Ok(turn) }
    }

    /// Makes the attempt. Once it is slow its message no longer waits for it: as many may be on their way at once as the
    /// broker hands over, and those that hang must not use that up.
    async fn attempt(&self, mut assignment: Assignment, mut turn: Turn) -> Finished {
        let mut settlement = std::mem::take(&mut assignment.settlement);
        let slowly = async {
            turn.until_slow().await;
            let claim = assignment.hold_claim(self.database.now());
            self.settler.settle(std::mem::take(&mut settlement), Some((claim, assignment.trace)));
            turn.go_over().await;
            std::future::pending::<Infallible>().await
        };
        let record = tokio::select! {
            biased;
            record = self.send(&assignment) => record,
            never = slowly => match never {},
        };
        assignment.settlement = settlement;
        let is_failure = !matches!(
            record.next,
            NextState::Delivered | NextState::Failed(FailureReason::Rejected | FailureReason::EndpointGone)
        );
        let unrecorded = turn.end(record.outcome, is_failure);
        Finished { assignment, how: FinishedAs::Attempted(record), unrecorded: Some(unrecorded) }
    }

    /// Makes the one attempt, and decides what follows from it.
    async fn send(&self, assignment: &Assignment) -> AttemptRecord {
        let Assignment { endpoint, body, .. } = assignment;
        let started_at = self.database.now();
        let sending = Sending {
            event: assignment.event,
            event_type: &assignment.event_type,
            application: assignment.application,
            delivery: assignment.delivery,
            attempt: assignment.attempt,
            replay: assignment.replay,
            at: started_at,
        };
        let request = Request::of_delivery(endpoint, &sending, body.clone());
        metrics::gauge!(metric::ATTEMPTS_IN_FLIGHT).increment(1);
        let exchange = self.client.post(request).await;
        crash_point("attempt.answered");
        metrics::gauge!(metric::ATTEMPTS_IN_FLIGHT).decrement(1);
        metrics::counter!(metric::ATTEMPTS, "outcome" => exchange.outcome.code()).increment(1);
        metrics::histogram!(metric::ATTEMPT_SECONDS).record(exchange.duration);
        tracing::Span::current().record("outcome", exchange.outcome.code());
        let decision = endpoint.policy.decide(
            exchange.outcome,
            assignment.failures,
            assignment.expires_at,
            self.database.now(),
            rand::random(),
        );
        log(assignment, &exchange, decision);
        record(assignment, started_at, exchange, decision)
    }
}

fn log(assignment: &Assignment, exchange: &Exchange, decision: Decision) {
    if decision == Decision::Delivered {
        return;
    }
    let attempt = AttemptId::derive(assignment.delivery, assignment.attempt);
    tracing::info!(
        delivery = %assignment.delivery,
        endpoint = %assignment.endpoint.id,
        %attempt,
        number = assignment.attempt,
        outcome = exchange.outcome.code(),
        status = exchange.outcome.status(),
        error = exchange.error,
        ?decision,
        "an attempt failed"
    );
}

fn record(assignment: &Assignment, started_at: Timestamp, exchange: Exchange, decision: Decision) -> AttemptRecord {
    let redacted = assignment.endpoint.redaction.redact_response(&exchange.response_body);
    AttemptRecord {
        delivery: assignment.delivery,
        attempt: assignment.attempt,
        sequence: assignment.sequence,
        taking: assignment.taking,
        endpoint: assignment.endpoint.id,
        notifies_owner: assignment.endpoint.notifies_owner,
        url: assignment.endpoint.url.to_string(),
        started_at,
        duration: exchange.duration,
        outcome: exchange.outcome,
        response_headers: exchange.response_headers_as_json(),
        error: exchange.error,
        response_body: redacted.unwrap_or_else(|| exchange.response_body.to_vec()),
        next: match decision {
            Decision::Delivered => NextState::Delivered,
            Decision::Retry { due } => NextState::Waiting { due },
            Decision::Failed(reason) => NextState::Failed(reason),
        },
    }
}

/// A delivery that was taken and not sent: its turn did not come in time, or the process stops.
fn give_back(assignment: Assignment, reason: DeferralReason, due: Timestamp) -> Finished {
    metrics::counter!(metric::DEFERRALS, "reason" => reason.as_str()).increment(1);
    let back = GiveBack {
        delivery: assignment.delivery,
        attempt: assignment.attempt,
        sequence: assignment.sequence,
        taking: assignment.taking,
        due,
        reason,
    };
    Finished { assignment, how: FinishedAs::GivenBack(back), unrecorded: None }
}
