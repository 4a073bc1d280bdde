//! Publishing over HTTP and AMQP: errors, limits, parked messages, permissions, and other people's clients.

mod amqp;
mod foreign_clients;
mod http;
mod limits;
mod parked;
mod publishers;
mod relay;
mod topology;
