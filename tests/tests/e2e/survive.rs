//! Crashes, stops and restarts: every accepted event is delivered, and the accounts agree.

mod crashes;
mod drain;
mod nodes;
mod order;
mod replicas;
mod stalls;
mod steps;
