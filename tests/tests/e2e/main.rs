//! End-to-end tests: Fanfare as operators and clients run it, by its binaries, API and messages.

mod api;
mod browser;
mod console;
mod deliver;
mod dialects;
mod endpoints;
mod features;
mod operate;
mod protect;
mod publish;
mod report;
mod survive;
