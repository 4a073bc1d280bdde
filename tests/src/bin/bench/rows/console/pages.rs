//! Addresses of the pages, with their budgets.

use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId, ParkedId};
use uuid::Uuid;

use crate::scene::Scene;

/// Kind of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Page,
    /// A step of a search, which reads a bounded number of rows.
    Step,
    /// The script's request for new rows of a list, without new rows.
    LiveList,
    /// The script's request for new content of another page, without new content. Costs as much as the page.
    LivePage,
}

impl Kind {
    /// Returns the goal of the 95th percentile, in milliseconds.
    pub(super) fn budget(self) -> f64 {
        match self {
            Self::Page | Self::LivePage => 50.0,
            Self::Step => 150.0,
            Self::LiveList => 5.0,
        }
    }
}

pub(super) struct Page {
    pub(super) name: &'static str,
    pub(super) address: String,
    pub(super) kind: Kind,
}

/// Objects with pages of their own.
pub(super) struct Found {
    application: ApplicationId,
    /// The webhooks with the most and the fewest deliveries, and the dead webhook.
    busy: EndpointId,
    rare: EndpointId,
    dead: EndpointId,
    failed: DeliveryId,
    failed_event: EventId,
    /// Key of the event.
    key: String,
    parked: ParkedId,
}

/// Finds the objects in a filled database.
pub(super) async fn find(scene: &Scene, application: ApplicationId) -> Found {
    let database = scene.world.database().await;
    let of_application = async |select: &str| database.query_one(select, &[&application.0]).await.expect("a row");
    let webhook = async |group: &str, order: &str| {
        let select = format!(
            "SELECT id FROM endpoints WHERE application_id = $1 AND url LIKE '%/{group}/%' ORDER BY id {order} LIMIT 1"
        );
        EndpointId(of_application(&select).await.get(0))
    };
    let failed = of_application(
        "SELECT d.id, d.event_id, e.key FROM deliveries d JOIN events e
             ON e.application_id = $1 AND e.accepted_at = delivery_accepted_at(d.id) AND e.id = d.event_id
         WHERE d.application_id = $1 AND d.state = 'failed' ORDER BY d.id DESC LIMIT 1",
    )
    .await;
    let parked = database.query_one("SELECT id FROM parked ORDER BY id DESC LIMIT 1", &[]).await.expect("a message");
    Found {
        application,
        busy: webhook("all", "ASC").await,
        rare: webhook("all", "DESC").await,
        dead: webhook("dead", "ASC").await,
        failed: DeliveryId(failed.get(0)),
        failed_event: EventId(failed.get::<_, Uuid>(1)),
        key: failed.get(2),
        parked: ParkedId(parked.get(0)),
    }
}

pub(super) fn of_console(found: &Found) -> Vec<Page> {
    let page = |name, path: &str| Page { name, address: format!("/console{path}"), kind: Kind::Page };
    let mut pages = vec![
        page("operations", "/"),
        page("endpoints in trouble", "/endpoints"),
        page("queues", "/queues"),
        page("parked messages", "/parked"),
        page("parked messages of a reason", "/parked?reason=invalid_json"),
        page("parked message", &format!("/parked/{}", found.parked)),
        page("applications", "/applications"),
        page("keys", "/keys"),
        page("sessions", "/sessions"),
        page("audit log", "/audit"),
        page("search of all applications by key", &format!("/search?q={}", found.key)),
        page("search of all applications by id", &format!("/search?q={}", found.failed)),
    ];
    pages.extend(of_application(found, &format!("/console/{}", found.application)));
    pages.push(page("settings of an application", &format!("/{}/settings", found.application)));
    pages.push(page("portal's links and sessions", &format!("/{}/portal", found.application)));
    pages.push(Page { name: "operations, live", address: "/console/".to_owned(), kind: Kind::LivePage });
    pages
}

pub(super) fn of_portal(found: &Found) -> Vec<Page> {
    of_application(found, &format!("/portal/{}", found.application))
}

fn of_application(found: &Found, base: &str) -> Vec<Page> {
    let Found { busy, rare, dead, failed, failed_event: event, key, .. } = found;
    let page = |name, kind: Kind, path: &str| Page { name, address: format!("{base}{path}"), kind };
    let pages = [
        ("overview", Kind::Page, "/".to_owned()),
        ("webhooks", Kind::Page, "/webhooks".to_owned()),
        ("add a webhook", Kind::Page, "/webhooks/new".to_owned()),
        ("webhook", Kind::Page, format!("/webhooks/{busy}")),
        ("dead webhook", Kind::Page, format!("/webhooks/{dead}")),
        ("edit a webhook", Kind::Page, format!("/webhooks/{busy}/edit")),
        ("test of a webhook", Kind::Page, format!("/webhooks/{busy}/test")),
        ("secret", Kind::Page, format!("/webhooks/{busy}/secret")),
        ("signature", Kind::Page, format!("/webhooks/{busy}/signature")),
        ("deletion of a webhook", Kind::Page, format!("/webhooks/{dead}/delete")),
        ("delivery log", Kind::Page, "/deliveries".to_owned()),
        ("log of failed", Kind::Page, "/deliveries?state=failed".to_owned()),
        ("log of delivered", Kind::Page, "/deliveries?state=delivered".to_owned()),
        ("log of queued", Kind::Page, "/deliveries?state=queued".to_owned()),
        ("log of waiting", Kind::Page, "/deliveries?state=scheduled,queued".to_owned()),
        ("log of held", Kind::Page, "/deliveries?state=held".to_owned()),
        ("log of a busy webhook", Kind::Page, format!("/deliveries?webhook={busy}")),
        ("log of a rare webhook", Kind::Page, format!("/deliveries?webhook={rare}")),
        ("log of failed of a rare webhook", Kind::Page, format!("/deliveries?webhook={rare}&state=failed")),
        ("log of a type", Kind::Step, "/deliveries?type=bench.0".to_owned()),
        ("log of an absent type", Kind::Step, "/deliveries?type=none".to_owned()),
        ("log of an answer", Kind::Step, "/deliveries?status=503".to_owned()),
        ("log of an absent answer", Kind::Step, "/deliveries?status=418".to_owned()),
        ("log of an absent type and answer", Kind::Step, "/deliveries?type=none&status=5xx".to_owned()),
        ("log of an absent outcome", Kind::Step, "/deliveries?outcome=timed_out".to_owned()),
        ("log of a reason", Kind::Step, "/deliveries?reason=attempts_exhausted".to_owned()),
        ("log of an absent text", Kind::Step, "/deliveries?contains=needle".to_owned()),
        ("resend of failed", Kind::Step, "/deliveries/resend?state=failed".to_owned()),
        ("delivery", Kind::Page, format!("/deliveries/{failed}")),
        ("events", Kind::Page, "/events".to_owned()),
        ("events of a type", Kind::Step, "/events?type=bench.0".to_owned()),
        ("events of an absent type", Kind::Step, "/events?type=none".to_owned()),
        ("unmatched events", Kind::Step, "/events?unmatched=true".to_owned()),
        ("event", Kind::Page, format!("/events/{event}")),
        ("why", Kind::Page, format!("/why?event={event}")),
        ("why, by key", Kind::Page, format!("/why?event={key}")),
        ("event types", Kind::Page, "/event-types".to_owned()),
        ("replays", Kind::Page, "/replays".to_owned()),
        ("new replay", Kind::Page, "/replays/new".to_owned()),
        ("changes", Kind::Page, "/changes".to_owned()),
        ("search by key", Kind::Page, format!("/search?q={key}")),
        ("search by text", Kind::Page, "/search?q=receiver".to_owned()),
        ("overview, live", Kind::LivePage, "/".to_owned()),
        ("delivery log, live", Kind::LiveList, "/deliveries".to_owned()),
        ("delivery, live", Kind::LivePage, format!("/deliveries/{failed}")),
        ("webhook, live", Kind::LivePage, format!("/webhooks/{busy}")),
    ];
    pages.into_iter().map(|(name, kind, path)| page(name, kind, &path)).collect()
}
