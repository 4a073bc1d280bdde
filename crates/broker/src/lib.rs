//! RabbitMQ: topology, codec, confirmed publishing, consuming. The one crate, beside the tests, that names `lapin`.
//!
//! Publishing and consuming have a connection each: under a memory or disk alarm the broker stops
//! reading from connections that publish, and acks must not wait behind that. Neither uses lapin's own
//! recovery, which leaves a consumer pending for ever after the broker has closed its channel; each has
//! a supervisor that builds connection, topology and channels anew.

mod acks;
mod codec;
mod connection;
mod consumer;
mod nodes;
mod parked;
mod publisher;
mod topology;
mod watchdog;

pub use codec::{Message, Unreadable, decode_claim, decode_event, encode_claim, encode_event};
pub use connection::BrokerSettings;
pub use consumer::{Consumers, Feed, Incoming};
pub use nodes::BrokerUrls;
pub use parked::{DELIVERY_LIMIT, Parked, PutBack, decode_parked, encode_parked, encode_put_back, encode_rerouted};
pub use publisher::{PublishError, Publisher};
pub use topology::{NotAPrefix, Prefix, Topology};
