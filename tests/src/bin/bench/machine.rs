//! The servers that a bench starts.

use std::fs;

use fanfare_tests::instance::{Instance, Servers};

/// The broker and the database of all measurements.
pub(crate) struct Machine {
    broker: Instance,
    database: Instance,
    /// Of an event's message.
    pub(crate) bytes: usize,
}

impl Machine {
    /// Starts them, for events of so many bytes.
    pub(crate) fn start(bytes: usize) -> Self {
        Self { broker: Instance::rabbitmq("bench"), database: Instance::postgres("bench"), bytes }
    }

    pub(crate) fn servers(&self) -> Servers {
        Servers { amqp_url: self.broker.url(), database_url: self.database.url() }
    }

    pub(crate) fn broker_process(&self) -> u32 {
        process_of(&self.broker)
    }

    pub(crate) fn database_process(&self) -> u32 {
        process_of(&self.database)
    }
}

fn process_of(instance: &Instance) -> u32 {
    let text = fs::read_to_string(instance.folder().join("pid")).expect("a server that does not run in Docker");
    text.trim().parse().expect("a process id")
}
