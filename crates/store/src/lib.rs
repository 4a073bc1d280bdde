//! Postgres: the migrations and all SQL of Fanfare. The one crate, beside the tests, that names
//! `tokio-postgres`.
//!
//! Every statement is a method of [`Store`], in the file of what it is about. The batch statements of
//! an event's way (`persist`, `moves`, `record`) have connections of their own; the latter two
//! reach rows by primary key only.

mod applications;
mod audit;
mod bodies;
mod clock;
mod deliveries;
mod endpoints;
mod erase;
mod error;
mod event_types;
mod events;
mod held;
mod jobs;
mod keyring;
mod keys;
mod lanes;
mod listener;
mod migrations;
mod moves;
mod notices;
mod parked;
mod partitions;
mod persist;
mod puts;
mod rates;
mod record;
mod reencrypt;
mod replays;
mod rescue;
mod resend;
mod secrets;
mod snapshot;
mod store;
mod tls;
mod trials;

pub use applications::{ApplicationChange, ApplicationRow, NewApplication};
pub use audit::{AuditEntry, AuditOutcome, NewAuditEntry};
pub use deliveries::{AttemptFilter, AttemptRow, DeliveryFilter, DeliveryRow, LoggedAttempt};
pub use endpoints::{EndpointRow, EndpointSettings, NewEndpoint, OwnHeaders};
pub use erase::Erasure;
pub use error::StoreError;
pub use events::EventRow;
pub use held::Held;
pub use jobs::{AdvisoryLock, Job};
pub use keyring::{Keyring, KeyringError};
pub use keys::KeyRow;
pub use lanes::{LaneView, ShownLane};
pub use moves::{GiveBack, Move, MoveTo, Moved};
pub use notices::{FailedDelivery, FailedEndpoint, Notice, NoticeBounds, Notices};
pub use parked::{ParkedFilter, ParkedMessage, ParkedRow};
pub use persist::{NewDelivery, NewEvent, PersistedEvent};
pub use puts::{Put, PutEndpoint};
pub use rates::Lease;
pub use record::{AttemptRecord, NextState};
pub use reencrypt::Reencrypted;
pub use replays::{NewReplay, PastEvent, Replay, Step, Wanted};
pub use rescue::Unfinished;
pub use resend::ResendFilter;
pub use secrets::Rotation;
pub use snapshot::{Directory, Snapshot};
pub use store::{DatabaseUrl, Store, StoreSettings};
