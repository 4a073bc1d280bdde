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
mod outbox;
mod pipeline;
mod requests;

pub use configuration::{
    applications::{ApplicationChange, ApplicationFilter, ApplicationPage, ApplicationRow, NewApplication, Selected},
    endpoint_upsert::{EndpointUpsert, Upserted},
    endpoints::{EndpointCreation, EndpointFilter, EndpointRow, EndpointSettings, NewEndpoint, OwnHeaders},
    event_types::SchemaRow,
    keys::KeyRow,
    names::Names,
    plans::{PlanRemoval, PlanRow},
    secrets::Rotation,
    sessions::NewSession,
    signing_keys::{KeyRotation, SigningKeyRow},
};
pub use connection::{
    caller::{Share, spawn_for_caller, with_caller},
    error::StoreError,
    keyring::{Keyring, KeyringError},
    pools::PoolState,
    store::{DatabaseUrl, Store, StoreSettings},
};
pub use directory::{
    counts::Counts,
    snapshot::{Directory, Snapshot},
};
pub use history::{
    attempts::{AttemptFilter, AttemptRow, LoggedAttempt},
    audit::{AuditEntry, AuditFilter, AuditOutcome, AuditPage, NewAuditEntry},
    deliveries::{DeliveryFilter, DeliveryPage, DeliveryRow},
    delivery_counts::{CountFilter, MAX_COUNTED, StateCount},
    events::{EventFilter, EventPage, EventPlace, EventRow, RecentTypes},
    feed::{FeedEntry, FeedPage, FeedRange},
    health::{EndpointHealth, LastFailed},
    notices::{ChangedCondition, ConditionNotice, FailedDelivery, FailedEndpoint, Notice, NoticeBounds, Notices},
    parked::{ParkedFilter, ParkedGroup, ParkedGroups, ParkedMessage, ParkedRow},
    search::{Hit, MAX_APPLICATIONS, MAX_ATTEMPTS, MAX_WALKED, Searched},
    stats::{StatsStep, StatsSubject},
    usage::{ApplicationUsage, QuotaUse, Usage, UsageFilter, UsageMarks},
    why::{Explained, ExplainedWebhook},
};
pub use operations::{
    advisory_locks::{AdvisoryLock, Job},
    archive::{ArchivedRow, DailyTable, ExpiredDay},
    census::Census,
    examine::{ApplicationCounts, DatabaseFacts},
    migrations::PlannedMigration,
    operational::{
        OperationalKey, OperationalMark,
        lasting::{FoundCondition, HeldBounds, LastingConditions, OperationalLook},
        occurrences::{FinishedReplay, Occurred},
        states::{OperationalChange, OperationalState, ToldEndpoint},
    },
    reencrypt::Reencrypted,
    runs::{JobRun, QueueDepthRow},
    troubled::TroubledEndpoint,
};
pub use outbox::{DeferredRows, InvalidTable, Outbox, OutboxTable};
pub use pipeline::{
    access_tokens::{AccessToken, FETCH_LASTS, TokenLook, TokenState, TokenTurn},
    backlogs::{BacklogRow, Probed, ReleasedBacklog, TakenBacklog, TouchedBacklog},
    delayed::{Cancellation, DueContent, DueEvent, DuePlan},
    digests::{DueDigest, Horizon, NewDigest, ToldDay},
    fan_out::FanOut,
    fifo::{Advance, WaitingKey},
    finish::{End, EndLeased},
    give_back::GiveBack,
    lease::{Demand, Floor, Leased, LeasedEvent},
    persist::{Chunk, Lease, NewDelivery, NewEvent, Persisted, Start},
    processes::{LivingProcess, NewProcess, ProcessKind, ProcessReport, ProcessRow},
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
    send::Opened,
};
