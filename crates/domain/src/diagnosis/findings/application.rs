//! Findings on an application, for its owner.

use jiff::Timestamp;

use super::{
    CertificateFact, Check, EndpointFact, Examined, ExpiringFact, Finding, HeldFact, RotationFact, Severity,
    StoppedFact, Subject, Whose,
    endpoints::{self, Reader},
    run, stopped,
    text::count,
};
use crate::{diagnosis::rollup::Counts, ids::ApplicationId};

/// Facts on an application.
#[derive(Debug, Clone)]
pub struct ApplicationFacts {
    /// Id of the application.
    pub application: ApplicationId,
    /// Time of the database.
    pub now: Timestamp,
    /// Endpoints that fail, each with the change just before.
    pub endpoints: Vec<EndpointFact>,
    /// Rotations that end soon.
    pub rotations: Vec<RotationFact>,
    /// Stopped endpoints.
    pub stopped: Vec<StoppedFact>,
    /// Ending client certificates.
    pub certificates: Vec<CertificateFact>,
    /// Deliveries held for paused endpoints.
    pub held: Vec<HeldFact>,
    /// Queued deliveries that expire soon.
    pub expiring: Vec<ExpiringFact>,
    /// Counts of the application in the last hour.
    pub recent: Counts,
}

const CHECKS: [Check<ApplicationFacts>; 6] = [
    ("No endpoint fails.", |facts| endpoints::failing(&facts.endpoints, facts.now, Reader::Customer)),
    ("No webhook is disabled by an answer, and no ordering key is parked.", |facts| {
        stopped::stopped(&facts.stopped, facts.now)
    }),
    ("No held or queued delivery is about to fail.", |facts| {
        [endpoints::held(&facts.held, facts.now), endpoints::expiring(&facts.expiring, facts.now)].concat()
    }),
    ("No rotation of a secret ends within the hour.", |facts| endpoints::rotations(&facts.rotations, facts.now)),
    ("No client certificate ends within 14 days.", |facts| endpoints::certificates(&facts.certificates, facts.now)),
    ("Every event of the last hour matched an endpoint.", unmatched),
];

/// Examines an application.
pub fn application_findings(facts: &ApplicationFacts) -> Examined {
    run(&CHECKS, facts)
}

fn unmatched(facts: &ApplicationFacts) -> Vec<Finding> {
    let Counts { events, unmatched, .. } = facts.recent;
    if unmatched == 0 {
        return Vec::new();
    }
    let matched = count(unmatched, "event", "events");
    let sentence = format!("{matched} of the last hour, of {events}, matched no endpoint.");
    let action = "Subscribe an endpoint to the events' types, or leave the events unsent.";
    let subject = Subject::Application(facts.application);
    vec![Finding::new(Severity::Notice, Whose::Publisher, subject, (sentence, action))]
}
