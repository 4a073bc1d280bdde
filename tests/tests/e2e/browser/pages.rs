//! Each page: accessibility in light and dark, silence of console and policy, keyboard, widths, colours, motion.

mod hostile;
mod keyboard;

use std::collections::BTreeMap;

use fanfare_domain::access::session::Face;
use fanfare_tests::{
    clients::browser::{Manner, Visit},
    scene::{self, Scene},
    world::World,
};
use futures_util::future::join_all;
use serde_json::json;

use crate::console::{crawl::crawl, visitor::Visitor};

/// Windows that examine pages at the same time.
const WINDOWS: usize = 3;

/// Examines pages in a window. Returns the faults.
async fn examine(world: &World, cookie: &str, pages: Vec<(String, String)>) -> Vec<String> {
    let visit = Visit::begin(world, "pages", cookie, Manner::USUAL).await;
    let mut faults = Vec::new();
    for (route, address) in pages {
        let status = visit.open(&address).await;
        assert_eq!(status, 200, "{address}");
        let name = route.trim_matches('/').replace(['{', '}'], "").replace('/', "-");
        let found = visit.act("examine", json!({ "name": name })).await;
        let found = found.as_array().cloned().unwrap_or_default();
        faults.extend(found.iter().map(|fault| format!("{address}: {}", fault.as_str().unwrap_or_default())));
    }
    visit.end().await;
    faults
}

/// Examines a page of each route that a visitor reaches from a first page.
async fn examine_all(world: &World, visitor: &Visitor, face: Face, first: &str, others: &[&str]) {
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    for page in crawl(visitor, face, first).await {
        pages.entry(page.route).or_insert(page.address);
    }
    pages.extend(others.iter().map(|address| ((*address).to_owned(), (*address).to_owned())));
    let mut shares = vec![Vec::new(); WINDOWS];
    for (index, page) in pages.into_iter().enumerate() {
        shares[index % WINDOWS].push(page);
    }
    let faults = join_all(shares.into_iter().map(|share| examine(world, &visitor.cookie, share))).await.concat();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn each_page_serves_everybody() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    Scene::fill(&world).await;
    scene::park(&world, &world.admin().await).await;
    let visitor = Visitor::by_link(&world, &[]).await;
    examine_all(&world, &visitor, Face::Console, "/console/", &["/console/sign-in", "/docs"]).await;
    let customer = Visitor::of_portal(&world, &["payloads", "test", "resend", "endpoints", "replay"]).await;
    let first = format!("/portal/{}/", world.application);
    examine_all(&world, &customer, Face::Portal, &first, &["/portal/ended"]).await;
}
