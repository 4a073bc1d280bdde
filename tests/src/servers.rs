//! Servers beside Fanfare: private instances of RabbitMQ and PostgreSQL, a proxy, and a collector of traces.

pub mod collector;
pub mod instance;
pub mod proxy;
