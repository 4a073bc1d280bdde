//! One release's processes replaced by another's, under load: what either wrote must serve the other.

use std::{mem, time::Duration};

use fanfare_tests::{patience::until, process::Process, receiver::Behaviour, release::Release, world::ready};
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::sleep};

use crate::{
    faults::{Fault, Part},
    scene::Scene,
};

/// For how long every first attempt at one endpoint fails, so that many claims of both releases wait.
const FAILING: Duration = Duration::from_millis(700);

/// Requests in a row that were all sent by a configuration, after which each of four dispatchers must know it: that one
/// of them took no part in so many is as good as impossible.
const IN_A_ROW: usize = 40;

/// Messages without a `message_id` in each roll: which dispatcher parks one and which one keeps it, is chance.
const PARKED: usize = 12;

impl Scene {
    /// The release before becomes this one.
    pub(crate) async fn roll_forward(&mut self) {
        block_in_place(|| Release::present().fanfare(&self.world.variables, &["migrate"]));
        self.roll_to(Release::present()).await;
    }

    /// Somebody goes back to the release before: by its own processes, on the schema of this one.
    pub(crate) async fn roll_back(&mut self) {
        self.roll_forward().await;
        self.roll_to(Release::previous().expect("its programs")).await;
    }

    /// Starts the processes of a release beside those that run, has all of them work together, and ends the others.
    async fn roll_to(&mut self, release: Release) {
        let old = mem::replace(&mut self.world.release, release);
        let (old_ingests, old_dispatchers) = (mem::take(&mut self.ingests), mem::take(&mut self.dispatchers));
        self.fail_for_a_while().await;
        self.fill();
        self.ready().await;
        let all = old_ingests.iter().chain(&self.ingests);
        self.load().spread_over(all.filter_map(|ingest| self.client_of(ingest)).collect());
        let new = self.world.release.clone();
        for (release, ingest) in [(&old, &old_ingests[0]), (&new, &self.ingests[0])] {
            self.change_by(ingest, release).await;
        }
        self.park_and_put_back([&old, &new]).await;
        self.fail_for_a_while().await;
        self.spread();
        self.end(old_ingests.into_iter().chain(old_dispatchers).collect()).await;
        self.again().await;
    }

    async fn fail_for_a_while(&self) {
        self.world.receiver.script("quick", &[Behaviour::FAIL]);
        sleep(FAILING).await;
        self.world.receiver.script("quick", &[Behaviour::OK]);
    }

    /// What is configured by way of one ingest is in force in all dispatchers.
    async fn change_by(&self, ingest: &Process, release: &Release) {
        ready(ingest).await;
        let client = self.client_of(ingest).expect("it serves");
        let value = format!("{:x}", rand::random::<u64>());
        let webhooks = client.get("webhooks?limit=100").await;
        let quick = webhooks
            .data()
            .as_array()
            .into_iter()
            .flatten()
            .find(|webhook| webhook["url"].as_str().is_some_and(|url| url.ends_with("/quick")));
        let id = quick.and_then(|webhook| webhook["id"].as_str()).expect("the endpoint").to_owned();
        let change = json!({ "headers": { "x-changed": value } });
        client.patch(&format!("webhooks/{id}"), &change).await.data();
        until(&format!("all dispatchers to know what was changed by {release:?}"), async || {
            let received = self.world.receiver.received("quick");
            let last = received.iter().rev().take(IN_A_ROW);
            (received.len() >= IN_A_ROW && last.into_iter().all(|one| one.header("x-changed") == value)).then_some(())
        })
        .await;
    }

    /// What dispatchers of either release park, those of either keep, and the commands of both put back.
    async fn park_and_put_back(&mut self, releases: [&Release; 2]) {
        let broker = self.world.broker().await;
        let routing_key = format!("{}.parked", self.world.application);
        let run = rand::random::<u32>();
        for number in 0..PARKED {
            let body = json!({ "data": { "key": format!("parked-{run:08x}-{number}") } }).to_string();
            assert!(broker.publish(&routing_key, None, &[], body).await.expect("the broker"));
        }
        let ids = until("all to be parked", async || {
            let list = ["parked", "list", "--reason", "missing_message_id"];
            let list = block_in_place(|| releases[0].fanfare(&self.world.variables, &list));
            let ids: Vec<String> = list.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
            (ids.len() == PARKED).then_some(ids)
        })
        .await;
        for (id, release) in ids.iter().zip(releases.into_iter().cycle()) {
            let command = |arguments: &[&str]| block_in_place(|| release.fanfare(&self.world.variables, arguments));
            let body: Value = serde_json::from_str(&command(&["parked", "show", id])).expect("JSON");
            let key = body["data"]["key"].as_str().expect("a key").to_owned();
            command(&["parked", "put-back", id, "--message-id", &key]);
            self.put_back.push(key);
        }
    }
}

/// The release that a run begins with.
pub(crate) fn begins_with(faults: &[Fault]) -> Release {
    if faults.iter().any(|fault| fault.part == Part::Release) {
        Release::previous().expect("its programs")
    } else {
        Release::present()
    }
}
