//! Common parts of the end-to-end tests and the demo: a private environment for each test with processes, a receiver
//! that records all requests, and clients for publishing over HTTP and AMQP.
//!
//! Nothing in this library uses the inside of Fanfare. Tests run the binaries and use the API and the messages, as
//! operators and clients do.

pub mod books;
pub mod broker;
pub mod bytes;
pub mod client;
pub mod collector;
pub mod database;
pub mod dialects;
pub mod instance;
pub mod load;
pub mod metrics;
pub mod node;
pub mod patience;
pub mod process;
pub mod proxy;
pub mod python;
pub mod receiver;
pub mod signature;
pub mod world;
