//! Publishing over HTTP and AMQP: errors, limits, parked messages, permissions, and other people's clients.

mod amqp;
mod cloud_events;
mod description;
mod foreign_clients;
mod http;
mod limits;
mod parked;
mod programs;
mod publishers;
mod quotas;
mod relay;
mod sdks;
mod topology;
