//! `/api/v1/webhooks`: the endpoints of an application. The API calls an endpoint a webhook.

pub mod authentication;
pub mod backlog;
pub mod digest;
pub mod feed;
pub mod filter_test;
pub mod health;
pub mod ordering_keys;
pub mod preview;
pub mod secrets;
pub mod settings;
pub mod templates;
pub mod test_sends;
mod tried;
pub mod verify;

use axum::extract::State;
use fanfare_domain::{
    delivery::policy::Schedule,
    endpoint::{EndpointStatus, fifo::Fifo, secret::SigningSecret},
    ids::{EndpointId, EventId, SecretId},
};
use fanfare_store::{EndpointCreation, EndpointFilter, EndpointRow, EndpointSettings, NewEndpoint, ToldDay};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Created, Page},
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        paging::{PageSize, Paging},
        parameters::{Path, Query, check_display_name, id},
    },
    routes::webhooks::{
        authentication::{AskedCredentials, AuthenticationView, CertificateView},
        settings::{Change, New, too_many_webhooks},
    },
    state::ApiState,
};

/// The highest count of held deliveries.
pub const MAX_COUNTED: usize = 10_000;

/// A webhook.
// `id`, `url`, `events` and `secret` come first, in the order of Ploints' documentation.
#[derive(Serialize, ToSchema)]
pub struct Webhook {
    #[schema(value_type = String, example = "wh_01h455vb4pex5vsknk084sn02q")]
    pub id: EndpointId,
    pub url: String,
    pub events: Vec<String>,
    /// The signing secret, shown only when the webhook is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The condition on the events.
    pub filter: Option<String>,
    /// The form of the bodies; `null` for the dialect's form.
    #[schema(value_type = Value)]
    pub template: Option<Box<RawValue>>,
    pub name: Option<String>,
    /// `enabled`; `paused`: deliveries are held until the webhook is enabled; `disabled`: deliveries are recorded as
    /// skipped.
    #[schema(example = "enabled")]
    pub status: &'static str,
    /// The reason for a status set by Fanfare: `endpoint_gone` if a response, such as 410, disabled the webhook;
    /// `disabled_by_receiver` if the response had `webhook-action: disable`.
    pub status_reason: Option<String>,
    /// The webhook's own deadline of an attempt, in milliseconds; `null` for the dialect's deadline.
    pub timeout_ms: Option<u128>,
    /// The webhook's own wait after each failed attempt; `null` for the dialect's schedule.
    pub schedule: Option<Vec<String>>,
    /// The webhook's own maximum of attempts per second; `null` for the dialect's limit, if any.
    pub rate_per_second: Option<u32>,
    /// The webhook's own address for failure notices; `null` for the application's address.
    pub email: Option<String>,
    /// The names of the webhook's own headers. The values are never shown.
    pub headers: Vec<String>,
    /// True if deliveries carry `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `none`; `copy`: the feed lists the deliveries, too; `only`: the feed lists the deliveries, and nothing is sent.
    #[schema(example = "none")]
    pub feed: &'static str,
    /// `block`, `park` or `skip:N`: each ordering key gets a delivery when the delivery before has ended. `null`: at
    /// the same time.
    #[schema(example = "block")]
    pub fifo: Option<String>,
    /// True if a daily event tells the number of deliveries and their hash.
    pub digest: bool,
    /// The first UTC day of the digests: the first whole day with the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub digest_from: Option<Date>,
    /// The last day that was told; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_digest: Option<LastDigest>,
    /// The number of parked ordering keys, counted up to 100; absent without any, and in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked_keys: Option<u64>,
    /// True if `webhook-signature` also has an Ed25519 signature (`v1a`) by each signing key of the application.
    pub asymmetric: bool,
    /// The deletion of a temporary webhook. Each read of the feed defers the deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// The authentication in `authorization`, without secrets.
    pub authentication: Option<AuthenticationView>,
    /// The client certificate of the connections, without the private key.
    pub client_certificate: Option<CertificateView>,
    /// The end of a rotation's overlap: until then, the previous secret signs, too.
    pub previous_secret_expires_at: Option<String>,
    /// The held deliveries of a paused webhook; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldDeliveries>,
    /// The entries of `events` that match no described event type. Only after a creation or change of `events`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub warnings: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// The last day that a digest told.
#[derive(Serialize, ToSchema)]
pub struct LastDigest {
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The number of deliveries of the day.
    pub count: i64,
    /// The event of the digest.
    #[schema(value_type = String)]
    pub event: EventId,
    #[schema(value_type = String, format = DateTime)]
    pub told_at: Timestamp,
}

impl From<ToldDay> for LastDigest {
    fn from(told: ToldDay) -> Self {
        Self { day: told.day, count: told.count, event: told.event, told_at: told.told_at }
    }
}

/// Held deliveries of a paused webhook.
#[derive(Serialize, ToSchema)]
pub struct HeldDeliveries {
    /// The number of held deliveries, counted up to 10,000.
    pub deliveries: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest_accepted_at: Option<Timestamp>,
}

impl Webhook {
    pub(crate) fn new(row: EndpointRow, secret: Option<&SigningSecret>) -> Self {
        Self {
            id: row.id,
            url: row.url,
            events: row.event_types,
            filter: row.filter,
            template: row.template.and_then(|template| RawValue::from_string(template).ok()),
            secret: secret.map(|secret| secret.text().to_owned()),
            name: row.name,
            status: row.status.as_str(),
            status_reason: row.status_reason,
            timeout_ms: row.timeout.map(|timeout| timeout.as_millis()),
            schedule: row.schedule.as_ref().map(Schedule::names),
            rate_per_second: row.rate,
            email: row.email,
            headers: row.header_names,
            trace_context: row.sends_trace,
            feed: row.feed.as_str(),
            fifo: row.fifo.map(|fifo| fifo.to_string()),
            digest: row.digest_from.is_some(),
            digest_from: row.digest_from,
            last_digest: None,
            parked_keys: None,
            asymmetric: row.is_asymmetric,
            expires_at: row.expires_at,
            authentication: row.authentication.map(AuthenticationView::from),
            client_certificate: row.certificate.map(CertificateView::from),
            previous_secret_expires_at: row.rotation_ends_at.map(|end| end.to_string()),
            held: None,
            warnings: Vec::new(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Creates a webhook. Only this answer shows the secret.
#[utoipa::path(post, path = "/webhooks", operation_id = "create_webhook", tag = "webhooks",
    request_body = New, responses((status = 201, body = Answer<Webhook>), Failures))]
pub async fn create(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Created<Webhook>, ApiError> {
    let id = EndpointId::new(api.store.now(), rand::random());
    create_with_id(&api, &authorized, id, new).await.map(Created)
}

/// Creates a webhook with a given id: a form that is sent twice creates one webhook. The second answer has no secret.
///
/// # Errors
/// Like [`create`], and for an id of a deleted webhook or of another application.
pub async fn create_with_id(
    api: &ApiState,
    authorized: &AuthorizedApplication,
    id: EndpointId,
    mut new: New,
) -> Result<Webhook, ApiError> {
    let secret = api.secret(new.secret.take())?;
    let asked = AskedCredentials {
        authentication: new.authentication.take().map(Some),
        certificate: new.client_certificate.take().map(Some),
    };
    let (mut settings, warnings) = api.check_new(authorized, new).await?;
    api.check_credentials(authorized, None, asked, &mut settings).await?;
    api.check_template_of(authorized, &settings, None).await?;
    let new = NewEndpoint {
        id,
        application: authorized.application,
        settings,
        secret_id: SecretId::new(api.store.now(), rand::random()),
        secret,
    };
    let most = api.max_webhooks(authorized).await?;
    match api.store.create_endpoint(&new, most).await? {
        EndpointCreation::Created(row) => Ok(Webhook { warnings, ..Webhook::new(*row, Some(&new.secret)) }),
        EndpointCreation::IdTaken => Ok(Webhook::new(api.endpoint(authorized, &id.to_string()).await?, None)),
        EndpointCreation::TooMany => Err(too_many_webhooks(most)),
    }
}

/// Selects the webhooks of a list. A webhook must meet all conditions.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only webhooks with this status: `enabled`, `paused` or `disabled`.
    pub state: Option<String>,
    /// Only webhooks with this text in name or URL, in any case.
    pub contains: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

impl Filter {
    /// The filter of the store, and the size of the page.
    pub(crate) fn parse(self) -> Result<(EndpointFilter, PageSize), ApiError> {
        let (before, size) = Paging { before: self.before, limit: self.limit }.parse()?;
        self.contains.as_deref().map(|text| check_display_name("contains", text)).transpose()?;
        let status = |text: &str| {
            EndpointStatus::parse(text)
                .ok_or_else(|| ApiError::invalid("state", "must be one of enabled, paused, disabled"))
        };
        let filter = EndpointFilter {
            status: self.state.as_deref().map(status).transpose()?,
            contains: self.contains,
            before,
            limit: size.rows(),
        };
        Ok((filter, size))
    }
}

/// Lists the webhooks, newest first.
#[utoipa::path(get, path = "/webhooks", operation_id = "list_webhooks", tag = "webhooks",
    params(Filter), responses((status = 200, body = Page<Webhook>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<Filter>,
) -> Result<Page<Webhook>, ApiError> {
    let (filter, size) = filter.parse()?;
    let rows = api.store.endpoints(authorized.application, &filter).await?;
    let webhooks = rows.into_iter().map(|row| Webhook::new(row, None)).collect();
    Ok(Page::of(webhooks, size, |webhook| webhook.id.to_string()))
}

/// Shows a webhook.
#[utoipa::path(get, path = "/webhooks/{id}", operation_id = "show_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    let held = match row.status {
        EndpointStatus::Paused => Some(api.store.held(row.id, MAX_COUNTED).await?),
        EndpointStatus::Enabled | EndpointStatus::Disabled => None,
    };
    let held = held
        .filter(|held| held.deliveries > 0)
        .map(|held| HeldDeliveries { deliveries: held.deliveries, oldest_accepted_at: held.oldest_accepted_at });
    let last_digest = match row.digest_from {
        Some(_) => api.store.told_day(row.id).await?.map(LastDigest::from),
        None => None,
    };
    let parked_keys = match row.fifo {
        Some(Fifo::Park) => Some(api.store.count_parked_keys(row.id).await?).filter(|count| *count > 0),
        _ => None,
    };
    let state = api.token_state(&row).await?;
    let mut shown = Webhook { held, last_digest, parked_keys, ..Webhook::new(row, None) };
    if let Some(authentication) = &mut shown.authentication {
        authentication.state = state;
    }
    Ok(Answer::of(shown))
}

/// Changes a webhook. Omitted fields keep their value. Another origin of `url` (scheme, host or port) needs `headers`
/// in the same request, if the webhook has own headers, and `authentication` with its secret, if the webhook has it.
#[utoipa::path(patch, path = "/webhooks/{id}", operation_id = "change_webhook", tag = "webhooks",
    params(("id" = String, Path)), request_body = Change,
    responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn change(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    JsonBody(mut change): JsonBody<Change>,
) -> Result<Answer<Webhook>, ApiError> {
    let webhook = id("id", &webhook)?;
    let asked = AskedCredentials {
        authentication: change.authentication.take(),
        certificate: change.client_certificate.take(),
    };
    let (mut settings, warnings) = api.check(&authorized, change).await?;
    api.check_credentials_of_change(&authorized, webhook, asked, &mut settings).await?;
    api.check_template_of_change(&authorized, webhook, &settings).await?;
    api.check_headers_of_move(&authorized, webhook, &mut settings).await?;
    api.check_reader(&authorized, webhook, &settings).await?;
    let changed = api.change(&authorized, webhook, &settings).await?;
    Ok(Answer::of(Webhook { warnings, ..changed }))
}

/// Changes a webhook, exactly like PATCH. Omitted fields keep their value.
#[utoipa::path(put, path = "/webhooks/{id}", operation_id = "put_webhook", tag = "webhooks",
    params(("id" = String, Path)), request_body = Change,
    responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn put(
    api: State<ApiState>,
    authorized: AuthorizedApplication,
    webhook: Path<String>,
    change: JsonBody<Change>,
) -> Result<Answer<Webhook>, ApiError> {
    self::change(api, authorized, webhook, change).await
}

/// Enables a webhook. Held deliveries are sent, oldest first, as fast as the webhook takes deliveries.
#[utoipa::path(post, path = "/webhooks/{id}/enable", operation_id = "enable_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn enable(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    api.set_status(&authorized, &webhook, EndpointStatus::Enabled).await.map(Answer::of)
}

/// Disables a webhook. Deliveries are recorded as skipped, and can be resent later.
#[utoipa::path(post, path = "/webhooks/{id}/disable", operation_id = "disable_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn disable(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    api.set_status(&authorized, &webhook, EndpointStatus::Disabled).await.map(Answer::of)
}

/// Pauses a webhook. Deliveries are held until the webhook is enabled, up to a maximum age and number.
#[utoipa::path(post, path = "/webhooks/{id}/pause", operation_id = "pause_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn pause(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    api.set_status(&authorized, &webhook, EndpointStatus::Paused).await.map(Answer::of)
}

/// Result of the deletion of a webhook.
#[derive(Serialize, ToSchema)]
pub struct Deleted {
    #[schema(value_type = String)]
    pub id: EndpointId,
    #[schema(example = true)]
    pub deleted: bool,
}

/// Deletes a webhook. Unfinished deliveries fail.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "delete_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Deleted>), Failures))]
pub async fn delete(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Deleted>, ApiError> {
    let webhook: EndpointId = id("id", &webhook)?;
    if !api.store.delete_endpoint(authorized.application, webhook).await? {
        return Err(no_such_webhook());
    }
    Ok(Answer::of(Deleted { id: webhook, deleted: true }))
}

impl ApiState {
    /// Finds an endpoint of the authorized application.
    pub(crate) async fn endpoint(
        &self,
        authorized: &AuthorizedApplication,
        webhook: &str,
    ) -> Result<EndpointRow, ApiError> {
        let webhook = id("id", webhook)?;
        self.store.endpoint(authorized.application, webhook).await?.ok_or_else(no_such_webhook)
    }

    async fn change(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<Webhook, ApiError> {
        if let Some(row) = self.store.change_endpoint(authorized.application, webhook, settings).await? {
            return Ok(Webhook::new(row, None));
        }
        if settings.keeps_secret_of.is_some() && self.store.endpoint(authorized.application, webhook).await?.is_some() {
            let message =
                "the authentication was changed meanwhile, and the secret to keep with it: send the request again";
            return Err(ApiError::new(ErrorCode::SettingsChanged, message));
        }
        Err(no_such_webhook())
    }

    async fn set_status(
        &self,
        authorized: &AuthorizedApplication,
        webhook: &str,
        status: EndpointStatus,
    ) -> Result<Webhook, ApiError> {
        let settings = EndpointSettings { status: Some(status), ..EndpointSettings::default() };
        let webhook = id("id", webhook)?;
        self.check_reader(authorized, webhook, &settings).await?;
        self.change(authorized, webhook, &settings).await
    }
}

pub(crate) fn no_such_webhook() -> ApiError {
    ApiError::not_found("id", "the application has no webhook with this id")
}
