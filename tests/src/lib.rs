//! Common parts of the end-to-end tests and the demo: a private environment for each test with processes, a receiver
//! that records all requests, and clients for publishing over HTTP and AMQP.
//!
//! Nothing in this library uses the inside of Fanfare. Tests run the binaries and use the API and the messages, as
//! operators and clients do.

pub mod clients;
pub mod folder;
pub mod ledger;
pub mod metrics;
pub mod patience;
pub mod receiver;
pub mod scene;
pub mod servers;
pub mod token_server;
pub mod world;
