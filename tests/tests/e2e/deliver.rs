//! Deliveries: the main path, answers, isolation, backlogs, rates, fan-outs, our egress, and replays.

mod answers;
mod backlog;
mod egress;
mod event_flow;
mod fan_out;
mod isolation;
mod rates;
mod receivers;
mod replays;
mod tenants;
