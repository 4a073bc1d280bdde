//! Operation: settings, commands, mail, archive, traces, upgrades, and documents that match the code.

mod archive;
mod commands;
mod docs_match_code;
mod doctor;
mod mail;
mod node_prints_json;
mod overview;
mod poolers;
mod services;
mod traces;
mod upgrade;
mod verify;
