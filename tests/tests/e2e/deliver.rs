//! Deliveries: the main path, isolation between endpoints and applications, backlogs, rates, replays, feeds, filters.

mod backlog;
mod egress;
mod event_flow;
mod fan_out;
mod feed;
mod filters;
mod isolation;
mod order;
mod rates;
mod receivers;
mod replays;
mod tenants;
