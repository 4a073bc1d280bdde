//! Plans: a change reaches all applications of the plan, and writes no row of an application.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    application::{plan::Limits, quota::Amount},
    dialect::Dialects,
    time::day_of,
};
use fanfare_store::{ApplicationChange, ApplicationFilter, Directory, PlanRemoval, Selected};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::database::{APPLICATION, Database};

fn events(quota: u64) -> Limits {
    Limits { events_per_day: Some(quota), ..Limits::default() }
}

fn into(plan: Option<&str>) -> ApplicationChange {
    ApplicationChange { plan: Some(plan.map(str::to_owned)), ..ApplicationChange::default() }
}

#[tokio::test]
async fn a_plan_in_use_stays() {
    let database = Database::fresh().await;
    let store = &database.store;
    assert_eq!(store.remove_plan("free").await.expect("a look"), PlanRemoval::NoSuchPlan);
    let made = store.put_plan("free", &events(5)).await.expect("a plan");
    assert_eq!((made.limits, made.applications), (events(5), 0));
    let unknown = store.change_application(APPLICATION, &into(Some("gold"))).await.expect_err("no plan");
    assert!(unknown.breaks_reference(), "{unknown}");
    store.change_application(APPLICATION, &into(Some("free"))).await.expect("a change").expect("the application");
    assert_eq!(store.remove_plan("free").await.expect("a look"), PlanRemoval::InUse(1));
    let changed = store.put_plan("free", &events(6)).await.expect("a plan");
    assert_eq!((changed.limits, changed.applications, changed.created_at), (events(6), 1, made.created_at));
    assert_eq!(store.plans().await.expect("plans"), [changed]);
    let own = ApplicationChange { max_webhooks: Some(Some(3)), ..ApplicationChange::default() };
    store.change_application(APPLICATION, &own).await.expect("a change");
    let limits = store.limits(APPLICATION).await.expect("a look").expect("the application");
    assert_eq!(limits, Limits { max_webhooks: Some(3), ..events(6) });
    let free = ApplicationFilter {
        selected: Selected { plan: Some("free".to_owned()), ..Selected::default() },
        limit: 10,
        ..ApplicationFilter::default()
    };
    assert_eq!(store.applications(&free).await.expect("a list").applications.len(), 1);
    store.change_application(APPLICATION, &into(None)).await.expect("a change");
    assert!(store.applications(&free).await.expect("a list").applications.is_empty());
    assert_eq!(store.remove_plan("free").await.expect("a removal"), PlanRemoval::Done);
}

/// An application that enters a plan at the moment of its removal: exactly one of both succeeds.
#[tokio::test]
async fn a_removal_and_an_entry_exclude_each_other() {
    let database = Database::fresh().await;
    for _ in 0..20 {
        database.store.put_plan("free", &events(5)).await.expect("a plan");
        database.store.change_application(APPLICATION, &into(None)).await.expect("a change");
        let (one, two) = (database.another_store(), database.another_store());
        let change = into(Some("free"));
        let (entered, removed) = tokio::join!(one.change_application(APPLICATION, &change), two.remove_plan("free"));
        match (entered, removed) {
            (Ok(_), Ok(PlanRemoval::InUse(1))) => {}
            (Ok(_), Err(error)) | (Err(error), Ok(PlanRemoval::Done)) => assert!(error.breaks_reference(), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn processes_learn_a_plan_and_the_counts_without_a_change_of_the_application() {
    let database = Database::fresh().await;
    let store = &database.store;
    store.put_plan("free", &events(5)).await.expect("a plan");
    store.change_application(APPLICATION, &into(Some("free"))).await.expect("a change");
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
    let directory = Directory::follow(database.another_store(), dialects, stop).await;
    let limits = || {
        let snapshot = directory.snapshot();
        snapshot.limits(&snapshot.applications[&APPLICATION])
    };
    assert_eq!(limits(), events(5));
    let version = directory.application(APPLICATION).expect("the application").version;

    store.put_plan("free", &Limits { publish_rate: Some(9), ..events(7) }).await.expect("a plan");
    let mut waited = 0;
    while limits().events_per_day != Some(7) {
        assert!(waited < 200, "the notice of the change never came");
        waited += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(limits().publish_rate, Some(9));
    assert_eq!(directory.application(APPLICATION).expect("the application").version, version);

    let today = day_of(Timestamp::now());
    let rows = "INSERT INTO usage_days VALUES ($1, $2, 4, 0, 0, 0, 0, 40), ($1, $2::date - 1, 6, 0, 0, 0, 0, 60)";
    database.rows(rows, &[&APPLICATION.0, &today]).await;
    database.run("UPDATE rollup_marks SET counted = counted + interval '1 minute'").await;
    let mut waited = 0;
    while directory.counted(APPLICATION).amount != (Amount { events: 4, bytes: 100 }) {
        assert!(waited < 400, "the counts never came: {:?}", directory.counted(APPLICATION));
        waited += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(directory.counted(APPLICATION).day, today);
}
