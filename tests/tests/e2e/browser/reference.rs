//! The page about the API: search, languages and links, and the page without scripts.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    world::World,
};
use serde_json::json;

#[tokio::test]
async fn an_operation_is_found_in_three_languages() {
    let world = World::shared().await;
    let visit = Visit::begin(&world, "reference", "", Manner::USUAL).await;
    visit.open("/docs").await;
    visit.fill("Search", "webhooks.rotateSecret").await;
    visit.sees("1 found").await;
    let curl = r#"curl -H "$AUTH" $API/webhooks/wh_…/rotate-secret --json '{"overlap_seconds":86400}'"#;
    let typescript = "await fanfare.webhooks.rotateSecret('wh_…', { overlap_seconds: 86400 })";
    let python = r#"fanfare.webhooks.rotate_secret("wh_…", models.SecretRotation(overlap_seconds=86400))"#;
    for (language, example) in [("curl", curl), ("TypeScript", typescript), ("Python", python)] {
        visit.act("check", json!({ "label": language })).await;
        visit.sees(example).await;
    }
    // A link shows a part that the search hid.
    visit.act("run", json!({ "script": "location.hash = 'Resend'" })).await;
    visit.act("finds", json!({ "selector": "#Resend" })).await;
    let repeated = visit.act("text", json!({ "selector": "#Resend" })).await;
    assert!(repeated.as_str().is_some_and(|text| text.contains("such as 503, or a status")), "{repeated}");
    visit.act("finds", json!({ "selector": "#list_deliveries a[href='#Delivery']" })).await;
    visit.open("/docs").await;
    visit.act("finds", json!({ "selector": "#rotate_secret p-" })).await;
    visit.end().await;
}

#[tokio::test]
async fn the_reference_is_text_without_scripts() {
    let world = World::shared().await;
    let visit = Visit::begin(&world, "reference-text", "", Manner::WITHOUT_SCRIPTS).await;
    visit.open("/docs").await;
    visit.sees("GET /webhooks\n").await;
    visit.sees(r#"curl -H "$AUTH" $API/webhooks"#).await;
    visit.end().await;
}
