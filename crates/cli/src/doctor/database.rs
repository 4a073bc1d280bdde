//! The database: version, durability, rights, schema and transactions.

use std::time::Duration;

use fanfare_store::{DatabaseFacts, Store};
use tokio::time::timeout;

use super::{Finding, Findings, spread};

/// Longest wait for all answers, and for all commits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Oldest tried version.
const OLDEST: i32 = 140_000;

/// Deviation of a machine's clock above which TLS and times in logs are in danger.
const CLOCK: Duration = Duration::from_secs(2);

/// Returns the findings, and true if the tables of this release can be read.
pub(super) async fn examine(store: &Store) -> (Vec<Finding>, bool) {
    let mut findings = Findings::new("database");
    let facts = match timeout(ANSWER_TIMEOUT, store.examine()).await {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => {
            findings.fail(format!("cannot be examined: {error}"));
            return (findings.into_vec(), false);
        }
        Err(_) => {
            findings.fail("does not answer");
            return (findings.into_vec(), false);
        }
    };
    judge(&facts, &mut findings);
    if facts.is_primary {
        commits(store, &mut findings).await;
    }
    (findings.into_vec(), facts.migration >= facts.known_migration)
}

async fn commits(store: &Store, findings: &mut Findings) {
    match timeout(ANSWER_TIMEOUT, store.measure_commits()).await {
        Ok(Ok(commits)) => findings.good(format!("commits {}", spread(&commits))),
        Ok(Err(error)) => findings.fail(format!("cannot commit: {error}")),
        Err(_) => {
            findings.fail("commits do not end: a full disk, or the standbys of synchronous_standby_names are away")
        }
    }
}

fn judge(facts: &DatabaseFacts, findings: &mut Findings) {
    let DatabaseFacts { version, user, .. } = facts;
    let tls = facts.tls.as_deref().unwrap_or("not encrypted");
    findings.check(
        facts.version_number >= OLDEST,
        format!("PostgreSQL {version}, {tls}, logged in as {user}"),
        format!("PostgreSQL {version} is older than 14"),
    );
    findings.check(facts.is_primary, "primary", "the server is a standby: DATABASE_URL must lead to the primary");
    judge_durability(facts, findings);
    judge_schema(facts, findings);
    if facts.tls.is_none() {
        findings.warn("the connection is not encrypted: add ?sslmode=verify-full to DATABASE_URL");
    }
    if facts.is_superuser {
        findings.warn(format!("{user} is a superuser: give Fanfare a role of its own (deploy/security.md)"));
    }
    for slot in &facts.idle_slots {
        findings.warn(format!("the replication slot {slot} has no receiver: the log grows until the disk is full"));
    }
    for (process, seconds) in &facts.old_transactions {
        findings.warn(format!(
            "process {process} has had a transaction open for {seconds} s: dead rows stay until the end"
        ));
    }
    if facts.clock_offset > CLOCK {
        let seconds = facts.clock_offset.as_secs_f64();
        findings.warn(format!("this machine's clock differs from the database's by {seconds:.1} s: synchronise both"));
    }
    let most: i64 = setting(facts, "max_connections").parse().unwrap_or(0);
    let is_tight = facts.sessions * 10 > most * 9;
    let used = format!("{} of {most} connections are open", facts.sessions);
    if is_tight { findings.warn(format!("{used}: raise max_connections")) } else { findings.good(used) }
}

fn judge_durability(facts: &DatabaseFacts, findings: &mut Findings) {
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        if setting(facts, name) == "off" {
            findings.fail(format!("{name} is off: a crash of the server loses acknowledged events"));
        }
    }
    if facts.standbys > 0 && setting(facts, "synchronous_standby_names").is_empty() {
        findings.fail(format!(
            "{} standbys are attached, and synchronous_standby_names is empty: a failover to a standby loses commits",
            facts.standbys
        ));
    }
    if facts.standbys > 0 && setting(facts, "synchronous_commit") == "local" {
        findings.fail("synchronous_commit is local: a failover to a standby loses commits");
    }
    if setting(facts, "autovacuum") == "off" {
        findings.fail("autovacuum is off: tables and indexes grow without end");
    }
    let logs_statements = ["mod", "all"].contains(&setting(facts, "log_statement"));
    let logs_slow = setting(facts, "log_min_duration_statement") != "-1";
    if (logs_statements || logs_slow) && setting(facts, "log_parameter_max_length") != "0" {
        findings.warn(
            "statements are logged with their parameters, which hold payloads: set log_parameter_max_length to 0",
        );
    }
}

fn judge_schema(facts: &DatabaseFacts, findings: &mut Findings) {
    let DatabaseFacts { migration, known_migration, .. } = facts;
    findings.check(
        migration >= known_migration,
        format!("schema {migration} of {known_migration}"),
        format!("the schema has {migration} of {known_migration} migrations: run `fanfare migrate`"),
    );
    if migration > known_migration {
        findings.warn("this command is older than the schema: use the command of the newest release");
    }
    if !facts.owns_tables {
        findings.warn(format!(
            "{} does not own all tables: only ingest may run with this user; dispatchers need the owner",
            facts.user
        ));
    }
    for index in &facts.invalid_indexes {
        findings.warn(format!("the index {index} is not built; a dispatcher builds it, or `fanfare migrate`"));
    }
}

fn setting<'a>(facts: &'a DatabaseFacts, name: &str) -> &'a str {
    facts.settings.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn sound() -> DatabaseFacts {
        let settings = [
            ("autovacuum", "on"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("log_min_duration_statement", "-1"),
            ("log_parameter_max_length", "-1"),
            ("log_statement", "none"),
            ("max_connections", "100"),
            ("synchronous_commit", "on"),
            ("synchronous_standby_names", ""),
        ];
        DatabaseFacts {
            version: "17.5".to_owned(),
            version_number: 170_005,
            is_primary: true,
            tls: Some("TLSv1.3".to_owned()),
            user: "fanfare".to_owned(),
            is_superuser: false,
            owns_tables: true,
            migration: 1,
            known_migration: 1,
            invalid_indexes: Vec::new(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            standbys: 0,
            sessions: 20,
            idle_slots: Vec::new(),
            old_transactions: Vec::new(),
            clock_offset: Duration::ZERO,
        }
    }

    /// Verdicts and texts of findings that are not good.
    fn bad(facts: &DatabaseFacts) -> Vec<(Verdict, String)> {
        let mut findings = Findings::new("database");
        judge(facts, &mut findings);
        let found = findings.into_vec().into_iter().filter(|finding| finding.verdict != Verdict::Good);
        found.map(|finding| (finding.verdict, finding.text)).collect()
    }

    fn with(name: &str, value: &str) -> DatabaseFacts {
        let mut facts = sound();
        let setting = facts.settings.iter_mut().find(|(known, _)| known == name).expect("a setting");
        setting.1 = value.to_owned();
        facts
    }

    #[test]
    fn a_sound_database_has_no_bad_findings() {
        assert_eq!(bad(&sound()), []);
    }

    #[test]
    fn each_fault_is_named() {
        let cases = [
            (with("fsync", "off"), Verdict::Failure, "fsync is off"),
            (with("synchronous_commit", "off"), Verdict::Failure, "synchronous_commit is off"),
            (with("full_page_writes", "off"), Verdict::Failure, "full_page_writes is off"),
            (with("autovacuum", "off"), Verdict::Failure, "autovacuum is off"),
            (with("log_statement", "all"), Verdict::Warning, "log_parameter_max_length"),
            (with("max_connections", "21"), Verdict::Warning, "max_connections"),
            (DatabaseFacts { standbys: 2, ..sound() }, Verdict::Failure, "2 standbys"),
            (DatabaseFacts { is_primary: false, ..sound() }, Verdict::Failure, "standby"),
            (DatabaseFacts { version_number: 130_000, ..sound() }, Verdict::Failure, "older than 14"),
            (DatabaseFacts { tls: None, ..sound() }, Verdict::Warning, "not encrypted"),
            (DatabaseFacts { is_superuser: true, ..sound() }, Verdict::Warning, "superuser"),
            (DatabaseFacts { owns_tables: false, ..sound() }, Verdict::Warning, "does not own"),
            (DatabaseFacts { known_migration: 2, ..sound() }, Verdict::Failure, "fanfare migrate"),
            (DatabaseFacts { migration: 2, ..sound() }, Verdict::Warning, "older than the schema"),
            (DatabaseFacts { invalid_indexes: vec!["half".to_owned()], ..sound() }, Verdict::Warning, "half"),
            (DatabaseFacts { idle_slots: vec!["old".to_owned()], ..sound() }, Verdict::Warning, "slot old"),
            (DatabaseFacts { clock_offset: CLOCK * 2, ..sound() }, Verdict::Warning, "clock differs"),
            (DatabaseFacts { old_transactions: vec![(7, 400)], ..sound() }, Verdict::Warning, "process 7"),
        ];
        for (facts, verdict, text) in cases {
            let found = bad(&facts);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].0 == verdict && found[0].1.contains(text), "{text}: {found:?}");
        }
    }
}
