//! The HTTP API: publishing, and the management of applications, event types, webhooks, events, deliveries, tests,
//! replays, parked messages and the audit log.
//!
//! `http` has the common parts of all routes, and imports neither `state` nor `routes`. `routes` has a file for each
//! subject, with the descriptions for the OpenAPI document. `compat` serves replaced systems' APIs by the code of
//! `routes`.

mod compat;
pub mod http;
pub mod routes;
mod state;

pub use crate::{
    compat::nudj::nudj_routes,
    http::{
        audit::{AUDIT_FAILURES, Audit, Author, audited},
        authentication::{authenticate, look_up_key},
        body::MAX_MANAGEMENT_BODY,
        budget::{Budget, within_budget},
        error::{ApiError, ErrorCode, Failures},
        fallback::{method_not_allowed, not_found},
        openapi::{describe, document_routes},
        refresh::refresh_after_write,
        shares::{Shares, end_with_caller, within_share},
    },
    routes::{
        applications::signing_keys::key_set_routes,
        events::publish::{BATCH_SIZE_FACTOR, publish_routes},
        routes,
    },
    state::{
        ApiState,
        feed_waits::FeedWaits,
        publishing::{PUBLISH_SECONDS, PUBLISHED, Publishing},
        test_sends::TestSends,
    },
};
