//! The web pages, without a browser: sign-in, guard, each page and form, and pages during an outage.

mod authentication;
mod away;
mod changes;
pub(crate) mod crawl;
mod delivery_forms;
mod digests;
mod fifo;
mod filters;
mod guard;
pub(crate) mod html;
mod pages;
mod plans;
mod portal;
mod request;
mod sign_in;
mod sign_in_by_others;
mod signing_keys;
mod templates;
pub(crate) mod visitor;
