//! Servers of all measurements, and the size of a run.

use std::{fs, time::Duration};

use fanfare_tests::{
    patience::patience,
    servers::instance::{Instance, Servers},
};
use tokio::task::block_in_place;

/// Size of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A hundredth of each measurement, to test that each measurement works.
    Smoke,
    Usual,
    /// Sizes of the goals: up to an hour and 20,000,000 rows.
    Long,
}

const LONGEST_WORK: Duration = Duration::from_secs(4 * 3600);

/// Broker and database of all measurements.
pub(crate) struct Machine {
    broker: Instance,
    database: Instance,
    pub(crate) extent: Extent,
    /// Number of runs for the median of a throughput.
    pub(crate) times: usize,
    /// Bytes of an event's message.
    pub(crate) bytes: usize,
}

impl Machine {
    /// Starts the broker and the database.
    pub(crate) fn start(extent: Extent, times: usize, bytes: usize) -> Self {
        let (broker, database) = (Instance::rabbitmq("bench"), Instance::postgres("bench"));
        Self { broker, database, extent, times, bytes }
    }

    /// Scales a number of events, endpoints or rows. A smoke run has a hundredth, and at least 2.
    pub(crate) fn count(&self, usual: usize) -> usize {
        if self.extent == Extent::Smoke { (usual / 100).max(2) } else { usual }
    }

    /// Returns `long` in a long run, and scales `usual` otherwise.
    pub(crate) fn count_or(&self, usual: usize, long: usize) -> usize {
        if self.extent == Extent::Long { long } else { self.count(usual) }
    }

    /// Returns a duration in seconds: 1 in a smoke run.
    pub(crate) fn seconds(&self, usual: u32) -> f64 {
        if self.extent == Extent::Smoke { 1.0 } else { usual.into() }
    }

    /// Like [`Self::seconds`], as a [`Duration`].
    pub(crate) fn wait(&self, usual: u32) -> Duration {
        Duration::from_secs_f64(self.seconds(usual))
    }

    /// Returns the time limit for a condition: some hours, except in a smoke run.
    pub(crate) fn patience(&self) -> Duration {
        if self.extent == Extent::Smoke { patience() } else { LONGEST_WORK }
    }

    pub(crate) fn servers(&self) -> Servers {
        Servers { amqp_url: self.broker.url(), database_url: self.database.url() }
    }

    /// Returns the number of messages from all publishers since the start of the broker.
    pub(crate) fn messages(&self) -> f64 {
        const RECEIVED: &str =
            "maps:get(messages_received_total, maps:get([{protocol, amqp091}], rabbit_global_counters:overview())).";
        let number = block_in_place(|| self.broker.rabbitmqctl(&["eval", RECEIVED]));
        number.trim().parse().expect("a number")
    }

    /// Returns the id of the broker's process.
    pub(crate) fn broker_process(&self) -> u32 {
        process_of(&self.broker)
    }

    /// Returns the id of the database's first process.
    pub(crate) fn database_process(&self) -> u32 {
        process_of(&self.database)
    }
}

fn process_of(instance: &Instance) -> u32 {
    let text = fs::read_to_string(instance.folder().join("pid")).expect("a server outside Docker");
    text.trim().parse().expect("a process id")
}
