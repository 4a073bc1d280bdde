//! Faults of the release: processes of two releases share broker and database under load.

use std::{mem, time::Duration};

use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{
        process::{Process, Variables},
        release::Release,
    },
};
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::sleep};

use crate::scene::Scene;

/// Time in which all attempts at an endpoint fail. Retry messages and scheduled deliveries of both releases then wait.
const FAILING: Duration = Duration::from_millis(700);

/// Newest requests that must show a change of the configuration. The chance that one of four dispatchers sent no
/// request of so many is 4 × 0.75^40.
const SHOW_CHANGE: usize = 40;

/// Messages without a `message_id` in each roll. The dispatcher that parks a message is chance.
const PARKED: usize = 12;

impl Scene {
    /// Migrates the schema, and replaces all processes by processes of this release.
    pub(crate) async fn roll_forward(&mut self) {
        let present = Release::present();
        block_in_place(|| present.fanfare(&self.world.variables, &["migrate"]));
        self.roll_to(present).await;
    }

    /// Replaces all processes by processes of this release, and then again by the previous release, on the new schema.
    pub(crate) async fn roll_back(&mut self) {
        self.roll_forward().await;
        let previous = Release::previous();
        block_in_place(|| previous.fanfare(&self.world.variables, &["migrate"]));
        self.roll_to(previous).await;
    }

    /// Starts processes of `new` beside the running processes, has both work on the same events, and ends the old ones.
    async fn roll_to(&mut self, new: Release) {
        let old = mem::replace(&mut self.world.release, new.clone());
        assert_ne!(old, new, "both releases are the same");
        let (old_ingests, old_dispatchers) = (mem::take(&mut self.ingests), mem::take(&mut self.dispatchers));
        self.fail_for_a_while().await;
        self.fill();
        self.ready().await;
        let all = old_ingests.iter().chain(&self.ingests);
        self.load().use_clients(all.filter_map(|ingest| self.client_of(ingest)).collect());
        self.change_over(&old_ingests[0]).await;
        self.change_over(&self.ingests[0]).await;
        self.park_and_put_back([&old, &new]).await;
        self.fail_for_a_while().await;
        self.spread();
        self.end(old_ingests.into_iter().chain(old_dispatchers).collect()).await;
        self.again().await;
    }

    async fn fail_for_a_while(&self) {
        self.world.receiver.script("quick", &[Behaviour::FAIL]);
        // The duration of the failure.
        sleep(FAILING).await;
        self.world.receiver.script("quick", &[Behaviour::OK]);
    }

    /// Changes an endpoint over an ingest, and waits until all dispatchers apply the change.
    async fn change_over(&self, ingest: &Process) {
        let client = self.client_of(ingest).expect("the ingest serves");
        let value = format!("{:x}", rand::random::<u64>());
        let webhooks = client.get("webhooks?limit=100").await;
        let mut webhooks = webhooks.data().as_array().into_iter().flatten();
        let quick = webhooks.find(|webhook| webhook["url"].as_str().is_some_and(|url| url.ends_with("/quick")));
        let id = quick.and_then(|webhook| webhook["id"].as_str()).expect("the endpoint").to_owned();
        let change = json!({ "headers": { "x-changed": value } });
        client.patch(&format!("webhooks/{id}"), &change).await.data();
        until("all dispatchers to apply a change", async || {
            let received = self.world.receiver.received("quick");
            let newest = received.iter().rev().take(SHOW_CHANGE);
            let shows = newest.filter(|request| request.header("x-changed") == value).count();
            (shows == SHOW_CHANGE).then_some(())
        })
        .await;
    }

    /// Has dispatchers of both releases park messages. The commands of both releases in turn put the messages back.
    async fn park_and_put_back(&mut self, releases: [&Release; 2]) {
        let broker = self.world.broker().await;
        let routing_key = format!("{}.parked", self.world.application);
        let run = rand::random::<u32>();
        for number in 0..PARKED {
            let body = json!({ "data": { "key": format!("parked-{run:08x}-{number}") } }).to_string();
            assert!(broker.publish(&routing_key, None, &[], body).await.expect("the broker"));
        }
        let variables = self.world.variables.clone();
        let ids = until("all messages to be parked", async || {
            let list = run_command(releases[0], &variables, &["parked", "list", "--reason", "missing_message_id"]);
            let ids: Vec<String> = list.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
            (ids.len() == PARKED).then_some(ids)
        })
        .await;
        for (id, release) in ids.iter().zip(releases.into_iter().cycle()) {
            let shown = run_command(release, &variables, &["parked", "show", id]);
            let body: Value = serde_json::from_str(&shown).expect("JSON");
            let key = body["data"]["key"].as_str().expect("a key").to_owned();
            run_command(release, &variables, &["parked", "put-back", id, "--message-id", &key]);
            self.accepted.push(key);
        }
    }
}

fn run_command(release: &Release, variables: &Variables, arguments: &[&str]) -> String {
    block_in_place(|| release.fanfare(variables, arguments))
}
