//! Searches of the audit log.

use fanfare_domain::ids::AuditId;
use fanfare_store::{AuditFilter, AuditOutcome};

use crate::database::Database;

/// 2,500 entries of a second each, the newest first. Three have another action, one of these has no outcome.
const LOG: &str = "
INSERT INTO audit_log (id, origin, action, outcome, at)
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(i), 12, '0'))::uuid,
           'ops@host', CASE WHEN i IN (900, 1500, 2400) THEN 'rare' ELSE 'usual' END, CASE WHEN i <> 1500 THEN 'done' END,
           moment
    FROM (SELECT i, now() - i * interval '1 s' AS moment FROM generate_series(0, 2499) i) entries";

#[tokio::test]
async fn a_search_finds_entries_beyond_its_bound_page_by_page() {
    let database = Database::fresh().await;
    database.run(LOG).await;
    let rare = AuditFilter { actions: vec!["rare".to_owned()], limit: 51, ..AuditFilter::default() };
    let (pages, found) = walk(&database, rare.clone()).await;
    assert_eq!((pages, found.len()), (3, 3), "1,000 entries a page");

    // The time and the place of a page apply together.
    let of_log = "SELECT at FROM audit_log WHERE action = 'rare' ORDER BY id";
    let since = database.rows(of_log, &[]).await[1].get(0);
    let (_, newer) = walk(&database, AuditFilter { since: Some(since), ..rare.clone() }).await;
    assert_eq!(newer, found[..2]);
    let behind = AuditFilter { since: Some(since), before: Some(found[0]), ..rare.clone() };
    assert_eq!(walk(&database, behind).await.1, found[1..2]);

    let unknown = AuditFilter { outcome: Some(None), actions: Vec::new(), ..rare.clone() };
    assert_eq!(walk(&database, unknown).await.1, found[1..2]);
    let (_, done) = walk(&database, AuditFilter { outcome: Some(Some(AuditOutcome::Done)), ..rare }).await;
    assert_eq!(done, [found[0], found[2]]);
}

/// Number of pages, and the entries of all pages.
async fn walk(database: &Database, mut filter: AuditFilter) -> (usize, Vec<AuditId>) {
    let (mut pages, mut found) = (0, Vec::new());
    loop {
        let page = database.store.audit_log(&filter).await.expect("a page");
        found.extend(page.entries.iter().map(|entry| entry.of.id));
        pages += 1;
        match page.passed {
            Some(passed) => filter.before = Some(passed),
            None => return (pages, found),
        }
    }
}
