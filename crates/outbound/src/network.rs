//! From a URL to a connection: names, permitted addresses, the operator's proxy, TLS, and whether our own side works.

pub(crate) mod certificates;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod egress;
pub(crate) mod evidence;
pub(crate) mod name_servers;
pub(crate) mod names;
pub(crate) mod tls;
