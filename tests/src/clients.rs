//! Clients of Fanfare: publishers over HTTP and AMQP, and the API.

pub mod amqp;
pub mod api;
pub mod browser;
pub mod load;
pub mod node;
pub mod python;
pub mod raw_amqp;
