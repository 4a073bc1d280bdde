//! Postgres: the migrations and all SQL of Fanfare. The one crate, beside the tests, that names
//! `tokio-postgres`.
//!
//! Every statement is a method of [`Store`], in the file of what it is about. The batch statements of
//! an event's way (`persist`, `moves`, `record`) have connections of their own; the latter two
//! reach rows by primary key only.

mod applications;
mod deliveries;
mod endpoints;
mod error;
mod jobs;
mod keyring;
mod keys;
mod migrations;
mod moves;
mod parked;
mod partitions;
mod persist;
mod record;
mod rescue;
mod snapshot;
mod store;

pub use applications::ApplicationRow;
pub use deliveries::{AttemptRow, DeliveryFilter, DeliveryRow};
pub use endpoints::{EndpointChange, EndpointRow, NewEndpoint};
pub use error::StoreError;
pub use jobs::{AdvisoryLock, Job};
pub use keyring::{Keyring, KeyringError};
pub use moves::{GiveBack, Move, MoveTo, Moved};
pub use parked::ParkedMessage;
pub use persist::{NewDelivery, NewEvent, PersistedEvent};
pub use record::{AttemptRecord, NextState};
pub use rescue::Unfinished;
pub use snapshot::{Directory, Snapshot};
pub use store::{DatabaseUrl, Store, StoreSettings};
