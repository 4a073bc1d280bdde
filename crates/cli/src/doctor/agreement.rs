//! Agreement of the living processes: settings and versions.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_store::{SeenProcess, Store};
use serde_json::Value;

use super::{Finding, Findings};

pub(super) async fn examine(store: &Store) -> Vec<Finding> {
    let mut findings = Findings::new("agreement");
    match store.seen_processes().await {
        Ok(processes) => judge(&processes, &mut findings),
        Err(error) => findings.fail(format!("the table of processes cannot be read: {error}")),
    }
    findings.into_vec()
}

fn judge(processes: &[SeenProcess], findings: &mut Findings) {
    for kind in ["ingest", "dispatcher"] {
        let count = processes.iter().filter(|process| process.kind == kind).count();
        match count {
            0 => findings.warn(format!("no {kind} runs")),
            _ => findings.good(format!("{kind}: {count}")),
        }
    }
    let versions: BTreeSet<&str> = processes.iter().map(|process| process.version.as_str()).collect();
    if versions.len() > 1 {
        let versions = Vec::from_iter(versions).join(", ");
        findings.warn(format!("processes of the versions {versions} run: finish the rollout"));
    }
    let mut values: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for process in processes {
        let settings: Value = serde_json::from_str(&process.settings).unwrap_or_default();
        for (name, value) in settings.as_object().into_iter().flatten() {
            let who = format!("{} {}", process.kind, process.id);
            values.entry(name.clone()).or_default().entry(value.to_string()).or_default().push(who);
        }
    }
    let differing: Vec<_> = values.iter().filter(|(_, values)| values.len() > 1).collect();
    for (name, values) in &differing {
        let values: Vec<String> = values.iter().map(|(value, who)| format!("{value} in {}", who.join(", "))).collect();
        findings.fail(format!("{name} differs: {}", values.join("; ")));
    }
    if differing.is_empty() && !values.is_empty() {
        findings.good(format!("{} agree", Vec::from_iter(values.into_keys()).join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn process(id: &str, kind: &str, expiry: u32) -> SeenProcess {
        let settings = format!(r#"{{"FANFARE_EXPIRY":{expiry},"FANFARE_RETENTION":5}}"#);
        SeenProcess { id: id.to_owned(), kind: kind.to_owned(), version: "0.1.0".to_owned(), settings }
    }

    fn found(processes: &[SeenProcess]) -> Vec<Finding> {
        let mut findings = Findings::new("agreement");
        judge(processes, &mut findings);
        findings.into_vec()
    }

    #[test]
    fn a_setting_that_differs_is_named_with_the_processes() {
        let agreeing = [process("a", "ingest", 1), process("b", "dispatcher", 1)];
        assert!(found(&agreeing).iter().all(|finding| finding.verdict == Verdict::Good));
        let found = found(&[process("a", "ingest", 1), process("b", "dispatcher", 2)]);
        let [fault] = &found.iter().filter(|finding| finding.verdict != Verdict::Good).collect::<Vec<_>>()[..] else {
            panic!("{found:?}")
        };
        assert_eq!(fault.verdict, Verdict::Failure);
        assert_eq!(fault.text, "FANFARE_EXPIRY differs: 1 in ingest a; 2 in dispatcher b");
    }

    #[test]
    fn missing_processes_and_mixed_versions_are_warnings() {
        let mut other = process("b", "dispatcher", 1);
        other.version = "0.2.0".to_owned();
        let found = found(&[process("a", "dispatcher", 1), other]);
        let warnings: Vec<&str> = found
            .iter()
            .filter(|finding| finding.verdict == Verdict::Warning)
            .map(|finding| finding.text.as_str())
            .collect();
        assert_eq!(warnings, ["no ingest runs", "processes of the versions 0.1.0, 0.2.0 run: finish the rollout"]);
    }
}
