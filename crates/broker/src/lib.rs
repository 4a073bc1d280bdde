//! RabbitMQ: topology, codec, confirmed publishing, consuming. Except for tests, no other crate names `lapin`.
//!
//! Publishing has a connection, and each consumed queue has another. Under a memory or disk alarm, the broker stops
//! reading from connections that publish, and acks must not wait behind such a connection. lapin's own recovery is
//! unused, since a consumer stays pending for ever after the broker has closed the channel. Each connection has a
//! supervisor instead that rebuilds connection, topology and channels.

mod acks;
mod codec;
mod connection;
mod consumer;
mod frames;
mod marked;
mod nodes;
mod parked;
mod publisher;
mod sanitize;
mod stream;
mod topology;
mod watchdog;

pub use codec::{Message, Unreadable, decode_event, decode_retry, encode_event, encode_retry};
pub use connection::BrokerSettings;
pub use consumer::{Consumers, Feed, Incoming};
pub use frames::sanitized;
pub use nodes::BrokerUrls;
pub use parked::{DELIVERY_LIMIT, Parked, PutBack, decode_parked, encode_parked, encode_put_back, encode_rerouted};
pub use publisher::{PublishError, Publisher};
pub use topology::{InvalidPrefix, Prefix, Topology};
