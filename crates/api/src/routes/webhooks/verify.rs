//! `/api/v1/webhooks/{id}/verify`: finds the mistake in a receiver's check of signatures.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::State;
use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare_domain::{
    application::signing_key::{PublicKey, SigningKeys},
    endpoint::Endpoint,
    ids::{ApplicationId, EventId},
    json,
};
use fanfare_outbound::mistakes::{Arrived, Computed, Diagnosis, GivenKey, Mistake, Signer, TOLERANCE, diagnose};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, timestamp},
    },
    state::ApiState,
};

/// The largest total length of the headers, and of the computed value, in bytes.
const MAX_HEADERS: usize = 16 * 1024;
const MAX_COMPUTED: usize = 512;

/// A request as a receiver got it. Give `body` or `body_base64`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Verify)]
pub struct New {
    /// The headers, at least those of the signature. Names in any case.
    pub headers: BTreeMap<String, String>,
    /// The body as exact text.
    #[schema(write_only)]
    pub body: Option<String>,
    /// The body's bytes in Base64.
    #[schema(write_only)]
    pub body_base64: Option<String>,
    /// The signature that the receiver's code computed.
    #[schema(write_only)]
    pub computed: Option<String>,
    /// The public key that the receiver's code verifies `v1a` with: `whpk_…`, or its 32 bytes in Base64 or hexadecimal
    /// digits.
    pub public_key: Option<String>,
    /// The time of the receiver's check, by the receiver's clock. Default: now.
    #[schema(format = DateTime)]
    pub received_at: Option<String>,
}

/// The result of the trials. Neither secrets nor signatures are shown.
#[derive(Serialize, ToSchema)]
pub struct Verification {
    /// True if a header has a right signature of these bytes.
    pub verifies: bool,
    /// The header with the right signature.
    #[schema(example = "webhook-signature")]
    pub header: Option<String>,
    /// The secret of the right signature: `current`; or `previous`, during a rotation. `null` if only a key made a
    /// right signature.
    #[schema(example = "current")]
    pub secret: Option<&'static str>,
    /// The signing keys of the application with a right asymmetric signature (`v1a`) of these bytes, as `kid`.
    pub signing_keys: Vec<String>,
    /// The receiver's public key; `null` if not given.
    pub public_key: Option<GivenPublicKey>,
    /// The time in `webhook-timestamp`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub timestamp: Option<Timestamp>,
    /// The seconds from `webhook-timestamp` to the check; negative if the receiver's clock is behind.
    pub age_seconds: Option<i64>,
    /// The tolerance of the libraries of Standard Webhooks, in seconds.
    pub tolerance_seconds: i64,
    /// True if these libraries refuse the time.
    pub out_of_tolerance: bool,
    /// The mistakes that explain why no header has a right signature; empty if unknown.
    pub mistakes: Vec<Found>,
    /// The value of the receiver's code; `null` if not given.
    pub computed: Option<ComputedValue>,
    /// The next action, in a sentence.
    pub remedy: String,
}

/// The explanation of a receiver's public key.
#[derive(Serialize, ToSchema)]
pub struct GivenPublicKey {
    /// The `kid` of the key, if the key is in force; `null` for an unknown or ended key.
    pub kid: Option<String>,
    /// True if the request has a right signature by the key.
    pub verifies: bool,
}

impl From<GivenKey> for GivenPublicKey {
    fn from(key: GivenKey) -> Self {
        match key {
            GivenKey::Signs(key) => Self { kid: Some(key.id()), verifies: true },
            GivenKey::SignsNot(key) => Self { kid: Some(key.id()), verifies: false },
            GivenKey::Unknown => Self { kid: None, verifies: false },
        }
    }
}

/// The explanation of a receiver's value.
#[derive(Serialize, ToSchema)]
pub struct ComputedValue {
    /// True if the value is the right value of `header`.
    pub right: bool,
    /// The header whose value the code computes; `null` if unknown.
    pub header: Option<String>,
    /// The mistakes that yield the value.
    pub mistakes: Vec<Found>,
}

/// A mistake that was found.
#[derive(Serialize, ToSchema)]
#[schema(as = SignatureMistake)]
pub struct Found {
    #[schema(example = "body_printed_again")]
    pub code: &'static str,
    /// The remedy, in a sentence.
    pub remedy: &'static str,
}

impl From<Mistake> for Found {
    fn from(mistake: Mistake) -> Self {
        Self { code: mistake.code(), remedy: mistake.remedy() }
    }
}

/// Verifies a received request with the webhook's secrets. Finds known mistakes in the receiver's check: the wrong part
/// of the secret, a changed body, a missing part of the signed text, a wrong encoding, an old secret, a wrong clock.
#[utoipa::path(post, path = "/webhooks/{id}/verify", operation_id = "verify_signature", tag = "webhooks",
    params(("id" = String, Path)), request_body = New,
    responses((status = 200, body = Answer<Verification>), Failures))]
pub async fn verify(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<Verification>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    let now = api.store.now();
    let given = Given::read(new, now)?;
    let (application, endpoint) = api.current_endpoint(&authorized, row.id).await?;
    let sent = api.sent_body(authorized.application, &given.headers).await?;
    let permit = api.test_sends.begin(authorized.application)?;
    // Hundreds of trials over a large body would hold up other requests.
    let trials = tokio::task::spawn_blocking(move || {
        let result = given.diagnose(&endpoint, application.signing_keys.as_deref(), sent.as_deref(), now);
        drop(permit);
        result
    });
    let ended = |_| ApiError::new(ErrorCode::InternalError, "internal fault during the trials, logged: try again");
    trials.await.map(|found| Answer::of(Verification::of(found))).map_err(ended)
}

/// The checked request.
struct Given {
    headers: HeaderMap,
    body: Vec<u8>,
    computed: Option<String>,
    public_key: Option<String>,
    at: Timestamp,
}

impl Given {
    fn read(new: New, now: Timestamp) -> Result<Self, ApiError> {
        let headers = headers(&new.headers)?;
        let body = match (new.body, new.body_base64) {
            (Some(text), None) => checked_body("body", text.into_bytes())?,
            (None, Some(encoded)) => {
                let invalid = |_| ApiError::invalid("body_base64", "is not Base64: encode the bytes of the body");
                checked_body("body_base64", BASE64_STANDARD.decode(encoded).map_err(invalid)?)?
            }
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("body_base64", "is given beside `body`: give only one of them"));
            }
            (None, None) => {
                let message = "`body` is missing: give the received body, or its bytes in `body_base64`";
                return Err(ApiError::new(ErrorCode::MissingField, message).at("body"));
            }
        };
        let is_printable = |text: &String| (1..=MAX_COMPUTED).contains(&text.len()) && !text.contains(char::is_control);
        for (field, text) in [("computed", &new.computed), ("public_key", &new.public_key)] {
            if text.as_ref().is_some_and(|text| !is_printable(text)) {
                let message = format!("must have 1 to {MAX_COMPUTED} bytes without control characters");
                return Err(ApiError::invalid(field, message));
            }
        }
        let at = new.received_at.as_deref().map(|text| timestamp("received_at", text)).transpose()?;
        Ok(Self { headers, body, computed: new.computed, public_key: new.public_key, at: at.unwrap_or(now) })
    }

    fn diagnose(
        &self,
        endpoint: &Endpoint,
        keys: Option<&SigningKeys>,
        sent: Option<&str>,
        now: Timestamp,
    ) -> Diagnosis {
        let arrived = Arrived {
            headers: &self.headers,
            body: &self.body,
            sent: sent.map(str::as_bytes),
            computed: self.computed.as_deref(),
            public_key: self.public_key.as_deref(),
            at: self.at,
        };
        diagnose(endpoint, keys, &arrived, now)
    }
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, ApiError> {
    if given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_HEADERS {
        return Err(ApiError::invalid("headers", format!("have more than {MAX_HEADERS} bytes")));
    }
    let header = |(name, value): (&String, &String)| {
        let invalid = || ApiError::invalid("headers", "must be names and values of HTTP headers");
        let name: HeaderName = name.trim().parse().map_err(|_| invalid())?;
        Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| invalid())?))
    };
    given.iter().map(header).collect()
}

/// A body of Fanfare is JSON in every dialect.
fn checked_body(field: &str, body: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    let text = str::from_utf8(&body).map(|text| text.trim_start_matches('\u{feff}'));
    if text.is_ok_and(|text| json::check(text).is_ok()) {
        return Ok(body);
    }
    let message =
        "is no JSON, and thus not the body that Fanfare sent: verify the bytes as received, before any parser";
    Err(ApiError::invalid(field, message))
}

impl ApiState {
    /// The body that Fanfare sent with this `webhook-id`. `None` for an unknown or erased event, and for a body with
    /// redacted members.
    async fn sent_body(&self, application: ApplicationId, headers: &HeaderMap) -> Result<Option<Arc<str>>, ApiError> {
        let event = headers.get("webhook-id").and_then(|value| value.to_str().ok()?.parse::<EventId>().ok());
        let Some(event) = event else { return Ok(None) };
        // A redacted body does not verify, and is thus never taken for the sent body.
        Ok(self.store.event(application, event).await?.and_then(|row| row.body).map(Arc::from))
    }
}

impl Verification {
    fn of(found: Diagnosis) -> Self {
        let remedy = remedy(&found);
        let computed = found.computed.map(|computed| match computed {
            Computed::Right(header) => {
                ComputedValue { right: true, header: Some(header.to_string()), mistakes: Vec::new() }
            }
            Computed::Mistaken(header, mistakes) => ComputedValue {
                right: false,
                header: Some(header.to_string()),
                mistakes: mistakes.into_iter().map(Found::from).collect(),
            },
            Computed::Unknown => ComputedValue { right: false, header: None, mistakes: Vec::new() },
        });
        Self {
            verifies: found.verified.is_some(),
            header: found.verified.as_ref().map(|verified| verified.header.to_string()),
            secret: found.verified.and_then(|verified| match verified.by {
                Signer::Secret(secret) => Some(secret.as_str()),
                Signer::Key(_) => None,
            }),
            signing_keys: found.keys.iter().map(PublicKey::id).collect(),
            public_key: found.public_key.map(GivenPublicKey::from),
            timestamp: found.timestamp,
            age_seconds: found.age.map(|age| age.as_secs()),
            tolerance_seconds: TOLERANCE.as_secs(),
            out_of_tolerance: found.age.is_some_and(|age| age.abs() > TOLERANCE),
            mistakes: found.received.into_iter().map(Found::from).collect(),
            computed,
            remedy,
        }
    }
}

/// The sentence for the first mistake, or for the result without a mistake.
fn remedy(found: &Diagnosis) -> String {
    let of_computed = match &found.computed {
        Some(Computed::Mistaken(_, mistakes)) => mistakes.first(),
        _ => None,
    };
    if let Some(mistake) = found.received.first().or(of_computed) {
        return mistake.remedy().to_owned();
    }
    let is_late = found.age.is_some_and(|age| age.abs() > TOLERANCE);
    match (&found.verified, &found.computed) {
        (Some(_), _) if found.public_key == Some(GivenKey::Unknown) => {
            "The public key is none of the application's keys in force: fetch the key set of the application again."
                .to_owned()
        }
        (Some(_), _) if matches!(found.public_key, Some(GivenKey::SignsNot(_))) => {
            "The request has no right `v1a` signature by the public key: turn on `asymmetric` for the webhook, or try \
             each key of the key set."
                .to_owned()
        }
        (None, _) => {
            "No secret and no key in force yields the signature: the secret was changed since, or the request is of \
                      another webhook, or was changed on its way."
                .to_owned()
        }
        (Some(_), Some(Computed::Mistaken(header, _))) => {
            format!("The computed value belongs to another request: `{header}` of this request differs.")
        }
        (Some(_), Some(Computed::Unknown)) => {
            "The request verifies. No known mistake yields the computed value: check the secret in the receiver's code."
                .to_owned()
        }
        (Some(_), Some(Computed::Right(header))) => {
            format!("The computed value is right: compare the value with the signature in `{header}`.")
        }
        (Some(_), None) if is_late => format!(
            "The signature verifies, but the time differs by more than {} s: set the receiver's clock, or verify at once.",
            TOLERANCE.as_secs()
        ),
        (Some(_), None) if matches!(found.public_key, Some(GivenKey::Signs(_))) => {
            "The request verifies by the public key: decode the Base64 behind `v1a,`, and verify \
             `<webhook-id>.<webhook-timestamp>.<body>`, as bytes."
                .to_owned()
        }
        (Some(_), None) => "The request verifies: nothing is wrong.".to_owned(),
    }
}
