//! The tasks of customers by keyboard alone, each with at most the activations that the design of the pages promises.
//! An activation is a key that leads to another page: Enter on a control, Enter in the search, or `g` and a letter.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    receiver::Behaviour,
    scene::KEY,
    world::{Endpoint, World},
};
use serde_json::json;

use crate::console::visitor::Visitor;

/// Deliveries that fail.
const FAILED: usize = 3;

/// A visitor without a mouse.
struct Keyboard {
    visit: Visit,
    activations: u32,
}

impl Keyboard {
    /// Opens the application's first page.
    async fn begin(world: &World, name: &str) -> Self {
        let visitor = Visitor::by_key(world, &world.key).await;
        let visit = Visit::begin(world, name, &visitor.cookie, Manner::USUAL).await;
        visit.open(&format!("/console/{}/", world.application)).await;
        Self { visit, activations: 0 }
    }

    /// Presses Tab until the control of this name has the focus. `…` at the end stands for the rest of a name.
    async fn tab_to(&self, name: &str) {
        self.visit.act("tab_to", json!({ "name": name })).await;
    }

    /// Types into a field in place of its text.
    async fn types(&self, label: &str, text: &str) {
        self.tab_to(label).await;
        self.visit.press("Control+a").await;
        self.visit.act("type", json!({ "text": text })).await;
    }

    async fn enter(&mut self) {
        self.visit.enter("Enter").await;
        self.activations += 1;
    }

    async fn activate(&mut self, name: &str) {
        self.tab_to(name).await;
        self.enter().await;
    }

    async fn search(&mut self, text: &str) {
        self.visit.press("/").await;
        self.visit.act("type", json!({ "text": text })).await;
        self.enter().await;
    }

    /// Opens a page of the navigation by its letter.
    async fn go(&mut self, letter: &str) {
        self.visit.press("g").await;
        self.visit.enter(letter).await;
        self.activations += 1;
    }

    /// Ends the task, which may take this number of activations.
    async fn end(self, promised: u32) {
        assert!(self.activations <= promised, "{} activations, {promised} promised", self.activations);
        self.visit.end().await;
    }
}

/// A world with an endpoint that fails, and failed deliveries.
async fn world_with_failures() -> (World, Endpoint) {
    let world = World::shared().await;
    let endpoint = world.endpoint("failing", &["*"]).await;
    world.receiver.script("failing", &[Behaviour::FAIL]);
    world.publish(&json!({ "type": "a", "id": KEY, "data": {} })).await;
    for number in 1..FAILED {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    world.wait_for_deliveries("state=failed", FAILED).await;
    world.receiver.script("failing", &[Behaviour::OK]);
    (world, endpoint)
}

#[tokio::test]
async fn why_an_order_did_not_arrive() {
    let (world, _) = world_with_failures().await;
    let mut keyboard = Keyboard::begin(&world, "keyboard-why").await;
    keyboard.search(KEY).await;
    keyboard.activate("Why?").await;
    keyboard.visit.sees("500").await;
    keyboard.end(2).await;
}

#[tokio::test]
async fn failed_deliveries_are_sent_again() {
    let (world, _) = world_with_failures().await;
    let mut keyboard = Keyboard::begin(&world, "keyboard-resend").await;
    keyboard.activate(&format!("{FAILED} Failed")).await;
    // A row, and the button of its delivery's resend, by shortcuts.
    keyboard.visit.press("j").await;
    keyboard.enter().await;
    keyboard.visit.press("r").await;
    keyboard.visit.enter("Enter").await;
    keyboard.visit.sees("1 delivery will be sent again").await;
    world.wait_for_deliveries("state=delivered", 1).await;

    keyboard.activations = 0;
    keyboard.go("d").await;
    keyboard.types("State", "failed").await;
    keyboard.activate("Filter").await;
    keyboard.activate("Resend these…").await;
    // The confirmation.
    keyboard.types("Type the number…", &(FAILED - 1).to_string()).await;
    keyboard.visit.enter("Enter").await;
    world.wait_for_deliveries("state=delivered", FAILED).await;
    keyboard.end(3).await;
}

#[tokio::test]
async fn the_neighbours_of_a_delivery_are_those_of_its_list() {
    let (world, _) = world_with_failures().await;
    world.publish(&json!({ "type": "another", "data": {} })).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    let mut keyboard = Keyboard::begin(&world, "keyboard-neighbours").await;
    let base = format!("/console/{}/deliveries", world.application);
    let failed = world.wait_for_deliveries("state=failed", FAILED).await;
    let list = "list=state%3Dfailed%26limit%3D2";
    let address = |at: usize| format!("{base}/{}?{list}", failed[at]["id"].as_str().expect("an id"));
    // Two rows a page: the neighbours are found beyond the page.
    keyboard.visit.open(&format!("{base}?state=failed&limit=2")).await;
    keyboard.visit.press("j").await;
    keyboard.enter().await;
    assert_eq!(keyboard.visit.address().await, address(0));
    for (key, at) in [("]", 1), ("]", 2), ("[", 1), ("[", 0)] {
        keyboard.visit.enter(key).await;
        assert_eq!(keyboard.visit.address().await, address(at));
    }
    keyboard.visit.press("[").await;
    keyboard.visit.sees("The list begins here.").await;
    for at in 1..FAILED {
        keyboard.visit.enter("]").await;
        assert_eq!(keyboard.visit.address().await, address(at));
    }
    keyboard.visit.press("]").await;
    keyboard.visit.sees("The list ends here.").await;
    // A resend keeps the list.
    keyboard.visit.press("r").await;
    keyboard.visit.enter("Enter").await;
    keyboard.visit.sees("1 delivery will be sent again").await;
    assert_eq!(keyboard.visit.address().await, format!("{}&done=resent", address(FAILED - 1)));
    // The resent delivery has left the list.
    world.wait_for_deliveries("state=delivered", 2).await;
    keyboard.visit.press("[").await;
    keyboard.visit.sees("The list does not have this delivery now.").await;
    // So does a resend from the list without a filter.
    let unfiltered = format!("{base}/{}?list=", failed[0]["id"].as_str().expect("an id"));
    keyboard.visit.open(&unfiltered).await;
    keyboard.visit.press("r").await;
    keyboard.visit.enter("Enter").await;
    keyboard.visit.sees("1 delivery will be sent again").await;
    assert_eq!(keyboard.visit.address().await, format!("{unfiltered}&done=resent"));
    keyboard.end(1).await;
}

#[tokio::test]
async fn an_endpoint_is_added_and_tried() {
    let world = World::shared().await;
    let mut keyboard = Keyboard::begin(&world, "keyboard-add").await;
    keyboard.activate("Add endpoint").await;
    keyboard.types("URL", &world.receiver.url("added")).await;
    keyboard.tab_to("These…").await;
    keyboard.visit.press("ArrowUp").await;
    keyboard.activate("Add endpoint").await;
    keyboard.visit.sees("Copy the secret now").await;
    keyboard.activate("Send test event").await;
    keyboard.visit.sees("The webhook took the event").await;
    keyboard.end(3).await;
}

#[tokio::test]
async fn an_endpoint_is_tried_paused_and_changed() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let title = "127.0.0.1/a";
    let page = format!("/console/{}/webhooks/{}", world.application, endpoint.id);
    let first = format!("/console/{}/", world.application);
    let mut keyboard = Keyboard::begin(&world, "keyboard-webhook").await;
    let mut promised = 0;

    // Send a test event.
    keyboard.activate("Send test event…").await;
    keyboard.visit.sees("The webhook took the event").await;
    promised += 1;
    // Pause, and resume.
    keyboard.visit.open(&first).await;
    keyboard.activate(title).await;
    assert_eq!(keyboard.visit.address().await, page);
    keyboard.activate("Pause").await;
    keyboard.visit.finds("h1:has-text('paused')").await;
    keyboard.activate("Resume").await;
    keyboard.visit.finds("h1:has-text('enabled')").await;
    promised += 3;
    // The check of a signature.
    keyboard.visit.open(&first).await;
    keyboard.activate(title).await;
    keyboard.activate("Signature").await;
    keyboard.visit.finds("h1:has-text('Signature of')").await;
    promised += 2;
    // A rotation.
    keyboard.visit.open(&first).await;
    keyboard.activate(title).await;
    keyboard.activate("Secret").await;
    keyboard.activate("Rotate the secret").await;
    keyboard.visit.sees("Copy the secret now").await;
    promised += 3;
    // A new URL, tested before it is saved.
    keyboard.visit.open(&first).await;
    keyboard.activate(title).await;
    keyboard.activate("Edit").await;
    keyboard.types("URL", &world.receiver.url("moved")).await;
    keyboard.activate("Save").await;
    keyboard.activate("Test the new URL").await;
    keyboard.visit.sees("The webhook took the event").await;
    keyboard.activate("Save").await;
    keyboard.visit.sees("Saved.").await;
    promised += 5;
    assert_eq!(world.receiver.received("moved").len(), 1);
    keyboard.end(promised).await;
}
