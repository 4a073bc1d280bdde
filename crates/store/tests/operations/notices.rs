//! Notices of changed conditions, for mails to the owners of endpoints.

use std::time::Duration;

use fanfare_domain::{
    ids::ApplicationId,
    operational::{Change, Condition},
};
use fanfare_store::{ConditionNotice, NoticeBounds, Notices, OperationalChange};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::{Database, ONE, endpoint};

/// Application of the operator.
const OPERATOR: ApplicationId = ApplicationId(Uuid::from_u128(0xb));

const OWNER: &str = "owner@example.com";

const BOUNDS: NoticeBounds =
    NoticeBounds { deliveries: 10, in_detail: 5, endpoints: 5, body_bytes: 100, conditions: 2 };

async fn database() -> Database {
    let database = Database::fresh().await;
    database.run(&format!("INSERT INTO applications (id, name) VALUES ('{}', 'operator')", OPERATOR.0)).await;
    database.run(&format!("UPDATE endpoints SET email = '{OWNER}' WHERE id = '{}'", endpoint(1).0)).await;
    database.store.operational_mark(OPERATOR).await.expect("a look").expect("a mark");
    database
}

impl Database {
    async fn note(&self, number: u128, condition: Condition, change: Change) {
        let (since, reason) = (Timestamp::now(), Some("endpoint_gone".to_owned()));
        let notices = [ConditionNotice { endpoint: endpoint(number), condition, change, since, reason }];
        let change = OperationalChange { notices: &notices, ..OperationalChange::default() };
        self.store.change_operational(ONE, OPERATOR, &change).await.expect("a commit").expect("the named application");
    }

    async fn owed(&self) -> Vec<String> {
        self.store.owed_mails(Duration::ZERO, Duration::ZERO, 10).await.expect("a look")
    }

    async fn content(&self) -> Notices {
        self.store.notices(OWNER, BOUNDS).await.expect("a look")
    }

    async fn settle(&self, notices: &Notices) {
        self.store.settle_notices(OWNER, notices, true).await.expect("a commit");
    }
}

fn changes(notices: &Notices) -> Vec<(Condition, Change)> {
    notices.conditions.iter().map(|changed| (changed.notice.condition, changed.notice.change)).collect()
}

#[tokio::test]
async fn the_newest_change_of_a_condition_is_reported_once() {
    let database = database().await;
    assert!(database.owed().await.is_empty());
    database.note(1, Condition::Failing, Change::Begins).await;
    database.note(1, Condition::Disabled, Change::Begins).await;
    database.note(1, Condition::Failing, Change::Ends).await;
    database.note(2, Condition::Failing, Change::Begins).await;
    assert_eq!(database.owed().await, [OWNER], "endpoint 2 has no owner");
    let gathering = database.store.owed_mails(Duration::ZERO, Duration::from_secs(60), 10).await.expect("a look");
    assert!(gathering.is_empty(), "changes gather for a while");

    let first = database.content().await;
    assert_eq!(changes(&first), [(Condition::Disabled, Change::Begins), (Condition::Failing, Change::Ends)]);
    assert_eq!(first.conditions[0].notice.reason.as_deref(), Some("endpoint_gone"));
    assert_eq!((first.conditions[0].url.as_str(), first.notified.len()), ("https://receiver.example/", 0));
    // A change behind the look is reported by the next mail.
    database.note(1, Condition::Disabled, Change::Ends).await;
    database.settle(&first).await;
    let second = database.content().await;
    assert_eq!(changes(&second), [(Condition::Disabled, Change::Ends)]);
    database.settle(&second).await;
    database.settle(&second).await;
    assert!(database.owed().await.is_empty() && database.content().await.conditions.is_empty());
    assert_eq!(database.count("condition_notices").await, 1);
    database.store.tidy_mails(Duration::ZERO, 10).await.expect("a commit");
    assert_eq!(database.count("condition_notices").await, 0, "no owner will come");
}

#[tokio::test]
async fn a_mail_has_a_bound_and_old_notices_are_forgotten() {
    let database = database().await;
    for condition in [Condition::Failing, Condition::Disabled, Condition::BreakerOpen] {
        database.note(1, condition, Change::Begins).await;
    }
    let first = database.content().await;
    assert_eq!(first.conditions.len(), BOUNDS.conditions);
    database.settle(&first).await;
    assert_eq!(changes(&database.content().await), [(Condition::BreakerOpen, Change::Begins)], "the next mail");
    let day = Duration::from_secs(86400);
    database.store.forget_notices(day, 10).await.expect("a commit");
    assert_eq!(database.count("condition_notices").await, 1);
    database.run("UPDATE condition_notices SET told_at = now() - interval '2 days'").await;
    database.store.forget_notices(day, 10).await.expect("a commit");
    assert_eq!(database.count("condition_notices").await, 0);
}
