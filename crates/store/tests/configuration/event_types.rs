//! Event types and the versions of their schemas.

use std::sync::Arc;

use fanfare_domain::{
    dialect::Dialects,
    event::{
        EventType,
        description::{Effect, Wanted, WantedType, plan},
        schema::Schema,
    },
    ids::ApplicationId,
};
use fanfare_store::Directory;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{APPLICATION, Database};

fn name() -> EventType {
    EventType::parse("order.created").expect("a type")
}

/// Describes the type with a schema: a new version, `null` for none, or the present ones without a text.
async fn describe(database: &Database, schema: Option<&str>) -> Effect {
    let wanted = [WantedType {
        name: name(),
        category: Wanted::Keep,
        description: Wanted::None,
        sample: Wanted::None,
        schema: match schema {
            None => Wanted::Keep,
            Some("null") => Wanted::None,
            Some(text) => Wanted::Value(Schema::parse(text).expect("a schema")),
        },
    }];
    let names = [name()];
    let changed = database.store.change_event_types(APPLICATION, &names, |known| (plan(known, &wanted), true));
    changed.await.expect("a change").remove(0).effect
}

#[tokio::test]
async fn versions_are_kept_until_the_schemas_or_the_type_are_removed() {
    let database = Database::new().await;
    let version = async |version| {
        let row = database.store.event_schema(APPLICATION, &name(), version).await.expect("a look");
        row.map(|row| (row.version, row.schema))
    };
    let row = |number, text: &str| Some((number, text.to_owned()));
    assert_eq!(describe(&database, Some("{\"minimum\": 1}")).await, Effect::Created);
    assert_eq!(describe(&database, Some("{\"minimum\": 1}")).await, Effect::Unchanged);
    assert_eq!(describe(&database, Some("{\"minimum\":2}")).await, Effect::Changed);
    assert_eq!(describe(&database, None).await, Effect::Unchanged);
    assert_eq!(version(None).await, row(2, "{\"minimum\":2}"));
    assert_eq!(version(Some(1)).await, row(1, "{\"minimum\":1}"));
    assert_eq!(version(Some(3)).await, None);
    let types = database.store.event_types(APPLICATION).await.expect("types");
    assert_eq!((types[0].schema_version, types[0].sample.as_str()), (Some(2), "2"), "the sample of the newest version");
    let other = ApplicationId(Uuid::from_u128(99));
    assert!(database.store.event_schema(other, &name(), None).await.expect("a look").is_none());

    assert_eq!(describe(&database, Some("null")).await, Effect::Changed);
    assert_eq!((version(None).await, describe(&database, None).await), (None, Effect::Unchanged));
    assert_eq!(describe(&database, Some("{}")).await, Effect::Changed);
    assert_eq!(version(None).await, row(1, "{}"));
    assert!(database.store.remove_event_type(APPLICATION, &name()).await.expect("a removal"));
    assert_eq!(database.count("event_schemas").await, 0);
}

#[tokio::test]
async fn a_change_that_is_only_planned_writes_nothing() {
    let database = Database::new().await;
    let names = [name()];
    let planned = database.store.change_event_types(APPLICATION, &names, |known| {
        assert_eq!((known.count, known.size), (0, 0));
        (Vec::new(), false)
    });
    assert_eq!(planned.await.expect("a plan").len(), 0);
    let unknown = ApplicationId(Uuid::from_u128(98));
    let described = describe_in(&database, unknown).await;
    assert!(described.is_err_and(|error| !error.is_transient()), "an unknown application");
}

async fn describe_in(database: &Database, application: ApplicationId) -> Result<usize, fanfare_store::StoreError> {
    let wanted = [WantedType {
        name: name(),
        category: Wanted::None,
        description: Wanted::None,
        sample: Wanted::None,
        schema: Wanted::Keep,
    }];
    let names = [name()];
    let changed = database.store.change_event_types(application, &names, |known| (plan(known, &wanted), true));
    changed.await.map(|planned| planned.len())
}

/// The directory loads the schemas of strict applications, and only after a change of a schema or of the setting.
#[tokio::test]
async fn services_check_by_the_newest_schemas_of_strict_applications() {
    let database = Database::fresh().await;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let dialects = Arc::new(Dialects::read([]).expect("the built-in dialects"));
    let directory = Directory::follow_applications(database.another_store(), dialects, stop).await;
    let fits = async |data: &str| {
        assert!(directory.refresh([APPLICATION]).await);
        let application = directory.application(APPLICATION).expect("the application");
        application.check_event(&name(), None, data).is_ok()
    };
    describe(&database, Some("{\"type\":\"string\"}")).await;
    assert!(fits("1").await, "not strict");
    database.run("UPDATE applications SET strict = true, version = version + 1").await;
    assert!(!fits("1").await && fits("\"a\"").await);
    database.run("UPDATE applications SET name = 'renamed', version = version + 1").await;
    assert!(!fits("1").await, "a change of something else keeps the schemas");
    describe(&database, Some("{\"type\":\"number\"}")).await;
    assert!(fits("1").await && !fits("\"a\"").await);
    describe(&database, Some("null")).await;
    assert!(fits("\"a\"").await);
    describe(&database, Some("{\"type\":\"number\"}")).await;
    assert!(!fits("\"a\"").await);
    assert!(database.store.remove_event_type(APPLICATION, &name()).await.expect("a removal"));
    assert!(!fits("1").await, "the type is not described");
    database.run("UPDATE applications SET strict = false, version = version + 1").await;
    assert!(fits("1").await);
}
