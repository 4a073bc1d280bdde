//! The web pages in Chromium: each page, and the scenarios of operators and customers. `make test-browser` runs them.

mod away;
mod live;
mod operations;
mod pages;
mod parked;
mod portal;
mod reference;
mod replays;
mod resend;
mod screenshot;
mod search;
mod sign_in;
mod webhooks;
mod why;
