//! The whole API, served by an ingest with only the database rights of `deploy/roles.sql`. The dispatcher's user is no
//! superuser either.

use fanfare_tests::{
    servers::instance::{Instance, Servers},
    world::{
        World,
        process::{fanfare, try_fanfare},
    },
};
use tokio::task::block_in_place;

use crate::api::{
    checked_client::{CheckedClient, JSON},
    conformance::contract,
    conformance::samples::Things,
};

#[tokio::test(flavor = "multi_thread")]
async fn ingest_needs_no_more_rights_than_it_is_given() {
    let postgres = block_in_place(|| Instance::postgres("rights"));
    let superuser = postgres.url();
    let roles = "CREATE ROLE fanfare_owner LOGIN CREATEDB; CREATE ROLE fanfare_ingest LOGIN";
    connect(&superuser).await.batch_execute(roles).await.expect("roles");
    let owner = superuser.replace("//fanfare@", "//fanfare_owner@");
    let mut world = World::with(Servers { database_url: owner, ..Servers::given() }, &[]).await;
    let given = fanfare(&world.variables, &["migrate", "--ingest-role", "fanfare_ingest"]);
    assert!(given.contains("fanfare_ingest has the rights of ingest"), "{given}");
    let (_, refused) = try_fanfare(&world.variables, &["migrate", "--ingest-role", "no\nbody"]);
    assert!(refused.is_some_and(|refused| refused.contains("create it")));
    drop(world.take_ingest());
    let restricted = world.variables["DATABASE_URL"].replace("//fanfare_owner@", "//fanfare_ingest@");
    world.start_ingest_with(&[("DATABASE_URL", &restricted)]).await;
    let _dispatcher = world.dispatcher().await;
    let things = Things::of(&world).await;
    let administrator = CheckedClient::admin(&world).await;

    let mut routes = contract::routes();
    // DELETE routes come last, because other routes need the objects.
    routes.sort_by_key(|route| route.method == hyper::Method::DELETE);
    for route in routes {
        let path = format!("{}?application={}", things.path(&route), things.application);
        let body = things.body(&route).map(|body| body.to_string()).unwrap_or_default();
        let answer = administrator.send(route.method.clone(), &path, &[JSON], body).await;
        assert!(answer.status < 500, "{} {path}: {}", route.method, answer.text);
    }
    let ingest = connect(&restricted).await;
    for statement in [
        "DELETE FROM audit_log",
        "UPDATE audit_log SET origin = 'somebody else'",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "TRUNCATE events",
        "DELETE FROM attempts",
        "DROP TABLE deliveries",
        "CREATE TABLE mine ()",
        "DELETE FROM applications",
    ] {
        let error = ingest.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{statement}: {error}");
    }
    // A function with the owner's rights must not write to a table of ingest's role.
    let own = "CREATE TEMPORARY TABLE key_version (version bigint); INSERT INTO key_version VALUES (0);
               GRANT ALL ON key_version TO PUBLIC; UPDATE api_keys SET role = role WHERE false";
    ingest.batch_execute(own).await.expect("a table of its own");
    let version = ingest.query_one("SELECT version FROM pg_temp.key_version", &[]).await.expect("the table");
    assert_eq!(version.get::<_, i64>(0), 0);
    assert_eq!(CheckedClient::new(&world).get("/api/v1/events").await.status, 200);
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the database");
    tokio::spawn(connection);
    client
}
