//! The broker: nodes, topology, sizes, delays and confirms.

use fanfare_broker::{BrokerFacts, BrokerSettings, QueueDepths};

use super::{Finding, Findings, spread};

pub(super) async fn examine(settings: &BrokerSettings, max_event_bytes: usize) -> Vec<Finding> {
    let mut findings = Findings::new("broker");
    for (address, tried) in settings.try_nodes().await {
        match tried {
            Ok(()) => findings.good(format!("{address}: logged in")),
            Err(error) => findings.fail(format!("{address} cannot be used: {error}")),
        }
    }
    if let Err(error) = QueueDepths::new(settings.clone()).read().await {
        // The broker's text names the queue.
        findings.warn(format!("a queue is missing, and is declared now: {error}"));
    }
    match settings.examine(max_event_bytes, rand::random()).await {
        Ok(Ok(facts)) => judge(&facts, max_event_bytes, &mut findings),
        Ok(Err(error)) => findings.fail(format!(
            "messages cannot be sent through queues of the doctor: {error}. Look at the alarms for memory and disk, and at \
             the rights of the user"
        )),
        // The broker's text names the argument of a queue that differs.
        Err(error) => findings.fail(format!("the topology cannot be declared: {error}")),
    }
    findings.into_vec()
}

fn judge(facts: &BrokerFacts, max_event_bytes: usize, findings: &mut Findings) {
    findings.good(format!("exchanges and queues are as declared; confirms {}", spread(&facts.confirms)));
    match &facts.largest {
        Ok(()) => findings.good(format!("an event of {max_event_bytes} bytes (FANFARE_MAX_EVENT_BYTES) is accepted")),
        Err(error) => findings.fail(format!(
            "an event of {max_event_bytes} bytes (FANFARE_MAX_EVENT_BYTES) is refused: {error}. Raise max_message_size of \
             RabbitMQ, or lower the setting"
        )),
    }
    match &facts.delay {
        Ok(()) => findings.good("a message passes a delay of one second"),
        Err(error) => findings.fail(format!(
            "no message passes a delay: {error}. Retries would not come back; see whether the feature flag \
             stream_queue is enabled"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_refused_size_and_a_lost_delay_are_failures() {
        let confirms = vec![Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(9)];
        let facts = BrokerFacts { confirms, largest: Err("too large".to_owned()), delay: Err("none".to_owned()) };
        let mut findings = Findings::new("broker");
        judge(&facts, 262_144, &mut findings);
        let found = findings.into_vec();
        let verdicts: Vec<Verdict> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Good, Verdict::Failure, Verdict::Failure]);
        assert!(found[0].text.contains("2.0 ms, worst 9.0 ms"));
        assert!(found[1].text.contains("max_message_size"));
    }
}
