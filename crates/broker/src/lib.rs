//! RabbitMQ: topology, codec, confirmed publishing, consuming. The one crate, beside the tests, that names `lapin`.
//!
//! Publishing has a connection, and each queue that is consumed has another: under a memory or disk alarm the broker stops
//! reading from connections that publish, and acks must not wait behind that. None uses lapin's own
//! recovery, which leaves a consumer pending for ever after the broker has closed its channel; each has
//! a supervisor that builds connection, topology and channels anew.

mod acks;
mod codec;
mod connection;
mod consumer;
mod frames;
mod marked;
mod mend;
mod nodes;
mod parked;
mod publisher;
mod stream;
mod topology;
mod watchdog;

pub use codec::{Message, Unreadable, decode_event, decode_retry, encode_event, encode_retry};
pub use connection::BrokerSettings;
pub use consumer::{Consumers, Feed, Incoming};
pub use frames::mended;
pub use nodes::BrokerUrls;
pub use parked::{DELIVERY_LIMIT, Parked, PutBack, decode_parked, encode_parked, encode_put_back, encode_rerouted};
pub use publisher::{PublishError, Publisher};
pub use topology::{NotAPrefix, Prefix, Topology};
