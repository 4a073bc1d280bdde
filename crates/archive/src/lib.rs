//! The archive: days of events, deliveries and attempts in object storage. Beside the tests, no other crate names
//! `object_store`.
//!
//! A day is a folder with objects and a manifest. The manifest is written last: a day without a manifest is incomplete.
//! deploy/archive.md describes the format.
//!
//! - `location`: the archive's URL, and the object storage behind the URL
//! - `connector`: HTTP for the clouds, by hyper and rustls
//! - `manifest`: the list of a day's objects
//! - `writer`: rows into compressed objects of bounded size
//! - `adopt`: a manifest that counts; objects of other writers are deleted
//! - `reader`: days, rows and checks
//! - `find`: an event with its deliveries and attempts

mod adopt;
mod connector;
mod error;
mod find;
mod location;
mod manifest;
mod reader;
mod writer;

pub use error::{ArchiveError, ProbeError};
pub use find::{Found, Wanted};
pub use location::{Archive, ArchiveUrl, InvalidArchiveUrl};
pub use manifest::{Manifest, ObjectEntry, Table};
pub use writer::{DayWriter, Row};
