//! PostgreSQL: the migrations and all SQL of Fanfare. Beside the tests, no other crate names `tokio-postgres`.
//!
//! Each statement is a method of [`Store`], in the file of the statement's subject. Batch statements have connections
//! of their own and reach rows by indexes only.
//!
//! While the database is away, each statement fails with [`StoreError::Unavailable`]; the statement may then have
//! committed. An `# Errors` section names other errors, and the effects of a commit without an answer.

mod configuration;
mod connection;
mod directory;
mod history;
mod operations;
mod pipeline;
mod requests;

pub use configuration::{
    applications::{ApplicationChange, ApplicationRow, NewApplication},
    endpoint_upsert::{EndpointUpsert, Upserted},
    endpoints::{EndpointRow, EndpointSettings, NewEndpoint, OwnHeaders},
    keys::KeyRow,
    secrets::Rotation,
};
pub use connection::{
    error::StoreError,
    keyring::{Keyring, KeyringError},
    store::{DatabaseUrl, PoolState, Store, StoreSettings},
};
pub use directory::snapshot::{Directory, Snapshot};
pub use history::{
    attempts::{AttemptFilter, AttemptRow, LoggedAttempt},
    audit::{AuditEntry, AuditOutcome, NewAuditEntry},
    deliveries::{DeliveryFilter, DeliveryRow},
    events::EventRow,
    failure_notices::{FailedDelivery, FailedEndpoint, Notice, NoticeBounds, Notices},
    parked::{ParkedFilter, ParkedMessage, ParkedRow},
};
pub use operations::{
    advisory_locks::{AdvisoryLock, Job},
    archive::{ArchivedRow, DailyTable, ExpiredDay},
    census::Census,
    examine::{ApplicationCounts, DatabaseFacts, SeenProcess},
    migrations::PlannedMigration,
    reencrypt::Reencrypted,
};
pub use pipeline::{
    backlogs::{BacklogRow, Probed, ReleasedBacklog, TakenBacklog, TouchedBacklog},
    fan_out::FanOut,
    finish::{End, EndLeased},
    give_back::GiveBack,
    lease::{Demand, Floor, Leased, LeasedEvent},
    persist::{Chunk, Lease, NewDelivery, NewEvent, Persisted, Start},
    processes::{LivingProcess, NewProcess, ProcessKind},
    record::{AttemptRecord, INLINE_WITHIN, NextState},
    recovery::Recovered,
    retries::{DueRetry, TakenRetries},
    sweep::{PAGES, Swept},
};
pub use requests::{
    erase::Erasure,
    replay_advance::{PastEvent, Step, Wanted},
    replays::{NewReplay, Replay},
    resend::{ResendFilter, ResentDelivery},
};
