//! Measurements, in the order of a run.

use futures_util::future::LocalBoxFuture;

use crate::{
    figures::Figures,
    rows::{
        console, foreign, growth,
        isolation::{beside, dead, failing, publishers},
        latency, lists, locks, outages, rates, raw, retries, rollups, slow, storage, throughput, way_back,
    },
    scene::machine::Machine,
};

/// Measurement with its name and description in `--list`. `run` adds figures to the table.
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: for<'a> fn(&'a Machine, &'a mut Figures) -> LocalBoxFuture<'a, ()>,
}

macro_rules! measurements {
    ($($name:literal, $run:path, $about:literal;)*) => {
        &[$(Measurement { name: $name, about: $about, run: |machine, figures| Box::pin($run(machine, figures)) }),*]
    };
}

pub(crate) const MEASUREMENTS: &[Measurement] = measurements! {
    "raw", raw::measure, "broker, database and HTTP client, each alone";
    "throughput", throughput::measure, "throughput and processor time per delivery, beside the ceiling";
    "ordered", throughput::ordered, "throughput of events with 10,000 ordering keys, without and with FIFO";
    "latency", latency::measure, "time from publish to receipt, beside the ceiling";
    "storage", storage::measure, "write-ahead log, broker's files and disk per delivery";
    "slow-receivers", slow::receivers, "200 endpoints answer in 300 ms, and in 50 ms to 5 s";
    "loud", beside::loud, "another application publishes at 100 times the rate";
    "beside-slow", beside::slow, "another application's receivers answer in 300 ms";
    "flood", beside::flood, "another application publishes four times the capacity of its endpoints";
    "one-of-ten", failing::one_of_ten, "one of ten endpoints hangs, is slow, refuses, drips";
    "half-of-many", failing::half_of_many, "half of 1,000 endpoints hang";
    "malformed", publishers::malformed, "a publisher sends a malformed message a second";
    "many-malformed", publishers::many_malformed, "a publisher sends 1,000 malformed messages a second";
    "forged", publishers::forged, "a publisher forges Fanfare's headers, 500 times a second";
    "large", publishers::large, "a publisher sends 20 bodies of 16 MiB a second";
    "changes", publishers::changes, "100,000 endpoints of an application change 10 times a second";
    "replay", failing::replay, "a replay of 100,000 events runs";
    "recovery", failing::recovery, "1,000 endpoints come back at the same moment";
    "dead", dead::single, "a dead endpoint with 30,000 deliveries (long: 360,000), and its return";
    "dead-many", dead::many, "1,000 dead endpoints with 20 deliveries each (long: 10,000 with 100), and their return";
    "way-back", way_back::measure, "receivers answer 10 s late for 10 s, at 65 and 80 % of the capacity";
    "due", retries::due, "2,000 retries a second come due over 100,000 endpoints";
    "delayed", retries::delayed, "500 delayed events a second come due";
    "backlogs", retries::backlogs, "50,000 endpoints of an application have backlogs";
    "rates", rates::measure, "endpoints limited to 10 and 1,000 a second, with one and four dispatchers";
    "backlog", growth::backlog, "a dispatcher starts on 100,000 events";
    "replicas", throughput::replicas, "two and four dispatchers on the same machine";
    "retries", growth::retries, "1,000,000 retries wait";
    "lost-broker", outages::lost_broker, "all retry messages are lost, of 100,000 retries (long: 1,000,000)";
    "log", growth::log, "2,000,000 attempts are recorded";
    "endpoints", growth::endpoints, "100,000 endpoints of 10,000 applications";
    "lists", lists::measure, "lists of the API over 200,000 deliveries (long: 10,000,000)";
    "console", console::measure, "pages over 1,000,000 deliveries of 30 days (long: 10,000,000)";
    "rollups", rollups::measure, "throughput with and without the data for charts and searches";
    "foreign", foreign::measure, "the recipe for another server, on a stand-in that only posts";
    "dropped-day", locks::dropped_day, "a day of 500,000 deliveries and attempts (long: 20,000,000) is dropped";
    "held-select", locks::held_select, "a SELECT stays open for a minute (long: an hour)";
};
