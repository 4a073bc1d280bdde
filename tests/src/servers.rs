//! Servers beside Fanfare: private instances of RabbitMQ and PostgreSQL, proxies, a name server, and a collector of
//! traces.

pub mod collector;
pub mod egress_proxy;
pub mod instance;
pub mod name_server;
pub mod proxy;
