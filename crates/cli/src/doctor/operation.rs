//! The findings of the overview: processes, queues, jobs, parked messages, endpoints and the rest.

use fanfare_domain::diagnosis::findings::{Examined, Finding, Severity, Whose, examine};
use fanfare_store::{Store, StoreError};

use super::Findings;

pub(super) async fn examine_operation(store: &Store) -> Vec<super::Finding> {
    let mut findings = Findings::new("operation");
    match look(store).await {
        Ok(Some(examined)) => judge(examined, &mut findings),
        Ok(None) => findings.warn("no process runs, and none died within the hour: start ingest and dispatchers"),
        Err(error) => findings.fail(format!("the tables of the operation cannot be read: {error}")),
    }
    findings.into_vec()
}

/// `None` before the first start of a process.
async fn look(store: &Store) -> Result<Option<Examined>, StoreError> {
    let endpoints = store.troubled_endpoints(None).await?;
    let (processes, queues) = (store.processes().await?, store.queue_depths().await?);
    if processes.is_empty() {
        return Ok(None);
    }
    let jobs = store.job_runs().await?;
    Ok(Some(examine(&store.facts(&endpoints, &processes, &queues, &jobs).await?)))
}

/// A trouble of our own fails the doctor if deliveries stand still; every other finding is a warning.
fn judge(examined: Examined, findings: &mut Findings) {
    for Finding { severity, whose, sentence, action, .. } in examined.findings {
        let text = format!("{sentence} {action}");
        match (severity, whose) {
            (Severity::Critical, Whose::Ours) => findings.fail(text),
            _ => findings.warn(text),
        }
    }
    for sentence in examined.well {
        findings.good(sentence);
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::diagnosis::findings::Subject;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn only_our_own_standstill_is_a_failure() {
        let finding = |severity, whose| Finding {
            severity,
            whose,
            since: None,
            sentence: "A trouble.".to_owned(),
            action: "Act.".to_owned(),
            subject: Subject::Processes,
        };
        let found = vec![
            finding(Severity::Critical, Whose::Ours),
            finding(Severity::Critical, Whose::Theirs),
            finding(Severity::Warning, Whose::Ours),
        ];
        let mut findings = Findings::new("operation");
        judge(Examined { findings: found, well: vec!["All is well."] }, &mut findings);
        let found = findings.into_vec();
        let verdicts: Vec<Verdict> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Failure, Verdict::Warning, Verdict::Warning, Verdict::Good]);
        assert_eq!(found[0].text, "A trouble. Act.");
    }
}
