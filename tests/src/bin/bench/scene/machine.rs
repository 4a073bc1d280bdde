//! The servers that all measurements share, and the size of a run.

use std::{fs, time::Duration};

use fanfare_tests::{
    patience::patience,
    servers::instance::{Instance, Servers},
};
use tokio::task::block_in_place;

/// How much a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A hundredth of everything: shows that each measurement works.
    Smoke,
    Usual,
    /// The sizes of the goals: up to an hour and 20,000,000 rows.
    Long,
}

const LONGEST_WORK: Duration = Duration::from_secs(4 * 3600);

/// The broker and the database of all measurements.
pub(crate) struct Machine {
    broker: Instance,
    database: Instance,
    pub(crate) extent: Extent,
    /// Runs of each throughput, of which the median counts.
    pub(crate) times: usize,
    /// Bytes of an event's message.
    pub(crate) bytes: usize,
}

impl Machine {
    /// Starts the servers.
    pub(crate) fn start(extent: Extent, times: usize, bytes: usize) -> Self {
        let (broker, database) = (Instance::rabbitmq("bench"), Instance::postgres("bench"));
        Self { broker, database, extent, times, bytes }
    }

    /// A number of events, endpoints or rows: a hundredth of it in a smoke run, and at least 2.
    pub(crate) fn count(&self, usual: usize) -> usize {
        if self.extent == Extent::Smoke { (usual / 100).max(2) } else { usual }
    }

    /// A number that is larger in a long run.
    pub(crate) fn count_or(&self, usual: usize, long: usize) -> usize {
        if self.extent == Extent::Long { long } else { self.count(usual) }
    }

    /// A time in seconds: one second of it in a smoke run.
    pub(crate) fn seconds(&self, usual: u32) -> f64 {
        if self.extent == Extent::Smoke { 1.0 } else { usual.into() }
    }

    /// The same for a wait.
    pub(crate) fn wait(&self, usual: u32) -> Duration {
        Duration::from_secs_f64(self.seconds(usual))
    }

    /// Time limit for a condition. A run that is not brief may have hours of work.
    pub(crate) fn patience(&self) -> Duration {
        if self.extent == Extent::Smoke { patience() } else { LONGEST_WORK }
    }

    /// The servers' addresses.
    pub(crate) fn servers(&self) -> Servers {
        Servers { amqp_url: self.broker.url(), database_url: self.database.url() }
    }

    /// Messages that the broker has received from all publishers since it started.
    pub(crate) fn messages(&self) -> f64 {
        const RECEIVED: &str =
            "maps:get(messages_received_total, maps:get([{protocol, amqp091}], rabbit_global_counters:overview())).";
        let number = block_in_place(|| self.broker.rabbitmqctl(&["eval", RECEIVED]));
        number.trim().parse().expect("a number")
    }

    /// The broker's process.
    pub(crate) fn broker_process(&self) -> u32 {
        process_of(&self.broker)
    }

    /// The database's first process.
    pub(crate) fn database_process(&self) -> u32 {
        process_of(&self.database)
    }
}

fn process_of(instance: &Instance) -> u32 {
    let text = fs::read_to_string(instance.folder().join("pid")).expect("a server that does not run in Docker");
    text.trim().parse().expect("a process id")
}
