//! Settings of a webhook in requests, and the checks of the settings.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    delivery::policy::{Policy, RATES, Schedule, TIMEOUTS},
    dialect::Dialect,
    endpoint::{
        EndpointStatus, Feed,
        fifo::Fifo,
        filter::Filter,
        header,
        secret::SigningSecret,
        template::Template,
        url::{UrlFault, check_url},
    },
    ids::EndpointId,
};
use fanfare_store::{EndpointRow, EndpointSettings, OwnHeaders};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use utoipa::ToSchema;

use crate::{
    http::{
        authentication::AuthorizedApplication,
        body::{not_null, nullable},
        error::{ApiError, ErrorCode},
        parameters::check_display_name,
    },
    routes::{
        applications::checked_email,
        webhooks::{
            authentication::{NewAuthentication, NewCertificate},
            templates::parsed_template,
        },
    },
    state::{ApiState, applications::ApplicationRules},
};

/// The minimum time from the end of a schedule to the end of the event's retention.
const DAY: Duration = Duration::from_secs(86400);

/// URL of webhooks to which nothing is sent. The name never resolves (RFC 6761).
const NO_URL: &str = "https://feed.invalid/";

/// Time without a read until a temporary webhook is deleted.
pub(super) const TEMPORARY: Duration = Duration::from_secs(3600);

/// The maximum number of an endpoint's own headers.
const MAX_HEADERS: usize = 20;

/// A webhook to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub struct New {
    /// Required, except with the feed `only`: such a webhook has the URL `https://feed.invalid/`.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String, required = false)]
    pub url: Option<String>,
    /// Subscriptions to event types. `points.*` covers all types with the prefix `points.`, `*` covers all types. A
    /// subscription that matches no described type gets a warning; a strict application refuses it.
    #[schema(example = json!(["REFERRAL_CREATED"]))]
    pub events: Vec<String>,
    /// A condition in CEL on `data` and `type`. An event makes a delivery only if the condition is true.
    #[schema(example = "data.amount > 100")]
    pub filter: Option<String>,
    /// The form of the bodies, instead of the dialect's: a JSON value. A text in it may hold `{{ expression }}`, in CEL
    /// on `data`, `type`, `id` and `time`. At most 16 KiB.
    #[schema(value_type = Value, required = false, example = json!({ "text": "{{ type }}: {{ data.amount }}" }))]
    pub template: Option<Value>,
    pub name: Option<String>,
    /// A secret that the receivers already have. Default: a generated secret.
    #[schema(write_only)]
    pub secret: Option<String>,
    /// `enabled`, `paused` or `disabled`. Default: `enabled`.
    pub status: Option<String>,
    /// The deadline of an attempt in milliseconds, 100 to 60000. Default: the dialect's deadline.
    pub timeout_ms: Option<u64>,
    /// The wait after each failed attempt. Default: the dialect's schedule.
    #[schema(example = json!(["60s", "5m", "24h"]))]
    pub schedule: Option<Vec<String>>,
    /// The maximum of attempts per second, 1 to 10000. Default: the dialect's limit, if any.
    pub rate_per_second: Option<u32>,
    /// The e-mail address for failure notices. Default: the application's address.
    pub email: Option<String>,
    /// Additional headers of all deliveries, at most 20. The values are stored encrypted, and never shown.
    pub headers: Option<BTreeMap<String, String>>,
    /// `true`: deliveries carry `traceparent` and `tracestate` (W3C Trace Context), if the event or the attempt has a
    /// trace. Default: `false`.
    pub trace_context: Option<bool>,
    /// `none`; `copy`: the feed lists the deliveries, too; `only`: the feed lists the deliveries, and nothing is sent.
    /// `only` stays for ever. Default: `none`.
    pub feed: Option<String>,
    /// FIFO per ordering key: a delivery waits until the delivery before has ended. `block`: until it is delivered or
    /// given up. `skip:N`: or has failed N times. `park`: if it is given up, until the key is resumed. Default: at the
    /// same time.
    #[schema(example = "block")]
    pub fifo: Option<String>,
    /// `true` with a feed: a daily event tells the number of deliveries and their hash, from the next UTC day on.
    /// Default: `false`.
    pub digest: Option<bool>,
    /// `true`: `webhook-signature` also has an Ed25519 signature (`v1a`) by each signing key of the application.
    /// Default: `false`.
    pub asymmetric: Option<bool>,
    /// `true` with the feed `only`: the webhook is deleted when the feed was not read for about an hour.
    pub temporary: Option<bool>,
    /// The authentication in `authorization`. Default: none.
    pub authentication: Option<NewAuthentication>,
    /// A client certificate, which the connections of this webhook show. Default: none.
    pub client_certificate: Option<NewCertificate>,
}

/// Changes to a webhook. Omitted fields keep their value.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookChange)]
pub struct Change {
    pub url: Option<String>,
    pub events: Option<Vec<String>>,
    /// A condition in CEL; `null` for all events.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub filter: Option<Option<String>>,
    /// The form of the bodies; `null` for the dialect's form.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Value, required = false)]
    pub template: Option<Option<Value>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Option<String>>,
    pub status: Option<String>,
    /// The deadline of an attempt in milliseconds, 100 to 60000; `null` for the dialect's deadline.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    pub timeout_ms: Option<Option<u64>>,
    /// The wait after each failed attempt; `null` for the dialect's schedule. Scheduled deliveries follow the new
    /// schedule from the next attempt on.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>)]
    pub schedule: Option<Option<Vec<String>>>,
    /// The maximum of attempts per second, 1 to 10000; `null` for the dialect's limit, if any.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    pub rate_per_second: Option<Option<u32>>,
    /// The e-mail address for failure notices; `null` for the application's address.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
    /// The complete set of additional headers, at most 20. Replaces all previous headers. Required with another origin
    /// of `url` (scheme, host or port), if the webhook has own headers.
    pub headers: Option<BTreeMap<String, String>>,
    /// `true`: deliveries carry `traceparent` and `tracestate` (W3C Trace Context).
    pub trace_context: Option<bool>,
    /// `none`, or `copy`: the feed lists the deliveries from now on, too.
    pub feed: Option<String>,
    /// FIFO per ordering key: `block`, `skip:N` or `park`; `null`: at the same time.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub fifo: Option<Option<String>>,
    /// `true` with a feed: a daily event tells the number of deliveries and their hash, from the next UTC day on.
    pub digest: Option<bool>,
    /// `true`: `webhook-signature` also has an Ed25519 signature (`v1a`) by each signing key of the application.
    pub asymmetric: Option<bool>,
    /// The authentication in `authorization`, without the secret to keep the stored secret of the same type; `null`:
    /// none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<NewAuthentication>)]
    pub authentication: Option<Option<NewAuthentication>>,
    /// A client certificate, which the connections of this webhook show; `null`: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<NewCertificate>)]
    pub client_certificate: Option<Option<NewCertificate>>,
}

impl From<New> for Change {
    fn from(new: New) -> Self {
        Self {
            url: new.url,
            events: Some(new.events),
            filter: new.filter.map(Some),
            template: new.template.map(Some),
            name: new.name.map(Some),
            status: new.status,
            timeout_ms: new.timeout_ms.map(Some),
            schedule: new.schedule.map(Some),
            rate_per_second: new.rate_per_second.map(Some),
            email: new.email.map(Some),
            headers: new.headers,
            trace_context: new.trace_context,
            feed: new.feed,
            fifo: new.fifo.map(Some),
            digest: new.digest,
            asymmetric: new.asymmetric,
            authentication: new.authentication.map(Some),
            client_certificate: new.client_certificate.map(Some),
        }
    }
}

impl ApiState {
    /// Parses the secret of a request. Without a secret, generates a random secret.
    pub(crate) fn secret(&self, text: Option<String>) -> Result<SigningSecret, ApiError> {
        match text {
            Some(text) => SigningSecret::parse(&text).map_err(|fault| ApiError::invalid("secret", fault)),
            None => Ok(SigningSecret::from_random(rand::random())),
        }
    }

    /// Checks a new webhook like a change. Returns warnings, too.
    pub(super) async fn check_new(
        &self,
        authorized: &AuthorizedApplication,
        new: New,
    ) -> Result<(EndpointSettings, Vec<String>), ApiError> {
        let (has_url, is_temporary) = (new.url.is_some(), new.temporary.unwrap_or_default());
        let (settings, warnings) = self.check(authorized, new.into()).await?;
        check_digest(settings.has_digest == Some(true), settings.feed.unwrap_or_default())?;
        if settings.feed != Some(Feed::Only) {
            if is_temporary {
                return Err(ApiError::invalid("temporary", "needs the feed `only`"));
            }
            if !has_url {
                return Err(ApiError::new(ErrorCode::MissingField, "`url` is missing").at("url"));
            }
            return Ok((settings, warnings));
        }
        if has_url {
            return Err(ApiError::invalid("url", "has no use with the feed `only`: nothing is sent; leave it out"));
        }
        if settings.status == Some(EndpointStatus::Paused) {
            return Err(never_paused());
        }
        let lifetime = is_temporary.then_some(TEMPORARY);
        Ok((EndpointSettings { url: Some(NO_URL.to_owned()), lifetime, ..settings }, warnings))
    }

    /// Refuses changes that have no use for a webhook whose receiver reads the feed, and the feed `only` for an
    /// existing webhook: deliveries may be under way. Refuses digests without a feed. Accepts an unknown webhook, which
    /// the change itself refuses.
    pub(crate) async fn check_reader(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<(), ApiError> {
        let pauses = settings.status == Some(EndpointStatus::Paused);
        if settings.url.is_none() && settings.feed.is_none() && settings.has_digest.is_none() && !pauses {
            return Ok(());
        }
        let Some(row) = self.store.endpoint(authorized.application, webhook).await? else { return Ok(()) };
        check_digest(settings.has_digest.unwrap_or(row.digest_from.is_some()), settings.feed.unwrap_or(row.feed))?;
        match (row.feed, settings.feed) {
            (Feed::Only, None | Some(Feed::Only)) if settings.url.is_some() => {
                Err(ApiError::invalid("url", "has no use with the feed `only`: nothing is sent"))
            }
            (Feed::Only, None) if pauses => Err(never_paused()),
            (Feed::Only, Some(Feed::None | Feed::Copy)) | (Feed::None | Feed::Copy, Some(Feed::Only)) => {
                Err(ApiError::invalid("feed", "cannot change to or from `only`: create another webhook"))
            }
            _ => Ok(()),
        }
    }

    /// Checks a change by the application's rules, and by a look-up of the URL's host name. Returns warnings, too.
    pub(super) async fn check(
        &self,
        authorized: &AuthorizedApplication,
        change: Change,
    ) -> Result<(EndpointSettings, Vec<String>), ApiError> {
        let ApplicationRules { dialect, catalogue, is_strict } = self.rules_of(authorized).await?;
        let warnings = match &change.events {
            Some(events) => catalogue.check_subscriptions("events", events, is_strict)?,
            None => Vec::new(),
        };
        let settings = self.settings(change, &dialect)?;
        self.vet(&settings).await?;
        Ok((settings, warnings))
    }

    /// Renders the template of a new webhook, or of a changed webhook `row`, for the events that the webhook gets.
    ///
    /// # Errors
    /// If the template has no body for one of them.
    pub(super) async fn check_template_of(
        &self,
        authorized: &AuthorizedApplication,
        settings: &EndpointSettings,
        row: Option<EndpointRow>,
    ) -> Result<(), ApiError> {
        let (events, filter, template) = row.map(|row| (row.event_types, row.filter, row.template)).unwrap_or_default();
        let Some(template) = settings.template.clone().unwrap_or(template) else { return Ok(()) };
        let events = settings.event_types.clone().unwrap_or(events);
        let filter = settings.filter.clone().unwrap_or(filter).map(Filter::stored);
        self.check_template(authorized, Template::stored(template), &events, filter).await
    }

    /// Checks the template of a changed webhook, if the change has a template, or events for the present one. Accepts
    /// an unknown webhook, which the change itself refuses.
    pub(crate) async fn check_template_of_change(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<(), ApiError> {
        let is_asked = matches!(settings.template, Some(Some(_))) || settings.event_types.is_some();
        if !is_asked {
            return Ok(());
        }
        let Some(row) = self.store.endpoint(authorized.application, webhook).await? else { return Ok(()) };
        if settings.template.is_none() && row.template.is_none() {
            return Ok(());
        }
        self.check_template_of(authorized, settings, Some(row)).await
    }

    /// Maximum of webhooks of the authorized application: its own, its plan's, or the deployment's.
    pub(crate) async fn max_webhooks(&self, authorized: &AuthorizedApplication) -> Result<usize, ApiError> {
        let limits = self.store.limits(authorized.application).await?.unwrap_or_default();
        Ok(limits.max_webhooks.and_then(|most| usize::try_from(most).ok()).unwrap_or(self.max_webhooks))
    }

    /// Refuses a URL if the host name now resolves to a forbidden address. An unresolved name passes: each attempt
    /// checks the address again.
    pub(crate) async fn vet(&self, settings: &EndpointSettings) -> Result<(), ApiError> {
        match settings.url.as_deref().and_then(|url| url.parse().ok()) {
            Some(url) => self.vet_url(&url).await,
            None => Ok(()),
        }
    }

    async fn vet_url(&self, url: &Url) -> Result<(), ApiError> {
        match self.client.refusal(url).await {
            Some(reason) => Err(ApiError::new(ErrorCode::InvalidUrl, reason).at("url")),
            None => Ok(()),
        }
    }

    /// Refuses another origin for stored headers and stored authentication: the values are credentials of the present
    /// origin, and are hidden from the caller. The change then holds for the authentication that was looked at. Accepts
    /// an unknown webhook, which the change itself refuses.
    pub(crate) async fn check_headers_of_move(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
        settings: &mut EndpointSettings,
    ) -> Result<(), ApiError> {
        let Some(url) = &settings.url else { return Ok(()) };
        let Some(row) = self.store.endpoint(authorized.application, webhook).await? else { return Ok(()) };
        let origin = |url: &str| url.parse::<Url>().map(|url| url.origin());
        if origin(url) == origin(&row.url) {
            return Ok(());
        }
        let keeps_secret = settings.authentication.is_none() || settings.keeps_secret_of.is_some();
        if row.authentication.is_some() && keeps_secret {
            let message = "`url` leads to another origin, and the authentication belongs to the present one: give \
                           `authentication` with its secret in the same request, or null to remove it";
            return Err(ApiError::new(ErrorCode::MissingField, message).at("authentication"));
        }
        settings.keeps_secret_of.get_or_insert(row.authentication_version);
        if row.header_names.is_empty() || settings.headers.is_some() {
            return Ok(());
        }
        let message = "`url` leads to another origin, and the headers may be credentials of the present one: give \
                       `headers` in the same request, or an empty object to remove the headers";
        Err(ApiError::new(ErrorCode::MissingField, message).at("headers"))
    }

    /// Checks the URL of a test like the URL of a webhook. The attempt is guarded in addition.
    pub(super) async fn url_to_try(&self, url: &str) -> Result<Url, ApiError> {
        let url = self.check_url(url)?;
        self.vet_url(&url).await?;
        Ok(url)
    }

    /// Checks a change without the event types, and without a look-up of the host name.
    pub(crate) fn settings(&self, change: Change, dialect: &Dialect) -> Result<EndpointSettings, ApiError> {
        if let Some(Some(name)) = &change.name {
            check_display_name("name", name)?;
        }
        let schedule = |waits: Vec<String>| self.check_schedule(&waits, dialect);
        Ok(EndpointSettings {
            url: change.url.map(|url| self.check_url(&url).map(String::from)).transpose()?,
            event_types: change.events,
            filter: change.filter.map(|text| text.map(|text| check_filter(&text, dialect)).transpose()).transpose()?,
            template: change
                .template
                .map(|value| value.map(|value| check_template(&value, dialect)).transpose())
                .transpose()?,
            name: change.name,
            status: change.status.map(|status| check_status(&status)).transpose()?,
            timeout: change.timeout_ms.map(check_timeout).transpose()?,
            schedule: change.schedule.map(|waits| waits.map(schedule).transpose()).transpose()?,
            rate: change.rate_per_second.map(check_rate).transpose()?,
            email: change.email.map(|email| email.map(checked_email).transpose()).transpose()?,
            headers: change.headers.map(|headers| check_headers(headers, dialect)).transpose()?,
            sends_trace: change.trace_context,
            feed: change.feed.map(|feed| check_feed(&feed)).transpose()?,
            fifo: change.fifo.map(|fifo| fifo.as_deref().map(check_fifo).transpose()).transpose()?,
            has_digest: change.digest,
            is_asymmetric: change.asymmetric,
            // Checked by `check_credentials`, which needs the stored secrets.
            authentication: None,
            keeps_secret_of: None,
            certificate: None,
            lifetime: None,
            keeps_pause: false,
        })
    }

    /// Refuses a schedule if a delivery could outlast the retention of its event.
    fn check_schedule(&self, waits: &[String], dialect: &Dialect) -> Result<Schedule, ApiError> {
        let schedule = Schedule::parse(waits).map_err(|fault| ApiError::invalid("schedule", fault.to_string()))?;
        // Counts the longest deadline: a later change of the deadline must not make the schedule too long.
        let policy = Policy { schedule, timeout: *TIMEOUTS.end(), ..Policy::clone(&dialect.policy) };
        let (lifetime, limit) = (policy.lifetime(self.expiry), self.retention.saturating_sub(DAY));
        if lifetime < limit {
            return Ok(policy.schedule);
        }
        Err(ApiError::invalid(
            "schedule",
            format!(
                "takes up to {} with all attempts and {} for delays, but must take less than {}: events are kept for \
                 {}; give fewer or shorter waits",
                in_words(lifetime),
                in_words(self.expiry),
                in_words(limit),
                in_words(self.retention)
            ),
        ))
    }

    fn check_url(&self, url: &str) -> Result<Url, ApiError> {
        let invalid = |fault: UrlFault| ApiError::new(ErrorCode::InvalidUrl, fault.to_string()).at("url");
        check_url(url, &self.url_policy).map_err(invalid)
    }
}

/// Formats a duration in hours, rounded up, or in days if whole.
fn in_words(duration: Duration) -> String {
    let hours = duration.as_secs().div_ceil(3600);
    if hours.is_multiple_of(24) { format!("{} d", hours / 24) } else { format!("{hours} h") }
}

fn check_status(status: &str) -> Result<EndpointStatus, ApiError> {
    EndpointStatus::parse(status).ok_or_else(|| ApiError::invalid("status", "must be one of enabled, paused, disabled"))
}

fn check_filter(text: &str, dialect: &Dialect) -> Result<String, ApiError> {
    if dialect.data_pointer().is_none() {
        let message = format!("has no use in the dialect {}: its bodies do not contain the data", dialect.name);
        return Err(ApiError::invalid("filter", message));
    }
    parsed_filter(text).map(|filter| filter.text().to_owned())
}

fn check_template(template: &Value, dialect: &Dialect) -> Result<String, ApiError> {
    if dialect.data_pointer().is_none() {
        let message = format!("cannot be used: the bodies of the dialect {} have no data", dialect.name);
        return Err(ApiError::invalid("template", message));
    }
    parsed_template(template).map(|template| template.text().to_owned())
}

/// Parses a filter of a request.
///
/// # Errors
/// With the place and the reason.
pub fn parsed_filter(text: &str) -> Result<Filter, ApiError> {
    Filter::parse(text).map_err(|fault| ApiError::invalid("filter", format!("cannot be used: {fault}")))
}

fn check_feed(feed: &str) -> Result<Feed, ApiError> {
    Feed::parse(feed).ok_or_else(|| ApiError::invalid("feed", "must be one of none, copy, only"))
}

fn check_fifo(fifo: &str) -> Result<Fifo, ApiError> {
    Fifo::parse(fifo).map_err(|sentence| ApiError::invalid("fifo", sentence))
}

/// Refuses digests without a feed: a receiver with another hash could not find what it missed.
fn check_digest(has_digest: bool, feed: Feed) -> Result<(), ApiError> {
    if has_digest && feed == Feed::None {
        let message = "needs a feed, by which the receiver finds what it missed: set `feed` to `copy`, or `digest` to \
                       false";
        return Err(ApiError::invalid("digest", message));
    }
    Ok(())
}

fn never_paused() -> ApiError {
    ApiError::invalid("status", "cannot be `paused` with the feed `only`: the receiver reads at its own pace")
}

fn check_timeout(milliseconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match milliseconds.map(Duration::from_millis) {
        Some(timeout) if !TIMEOUTS.contains(&timeout) => {
            Err(ApiError::invalid("timeout_ms", "must be between 100 and 60000"))
        }
        timeout => Ok(timeout),
    }
}

pub(crate) fn too_many_webhooks(most: usize) -> ApiError {
    let message = format!("the application has the maximum of {most} webhooks: delete a webhook first");
    ApiError::new(ErrorCode::TooManyWebhooks, message)
}

fn check_rate(rate: Option<u32>) -> Result<Option<u32>, ApiError> {
    match rate {
        Some(rate) if !RATES.contains(&rate) => {
            Err(ApiError::invalid("rate_per_second", "must be between 1 and 10000"))
        }
        rate => Ok(rate),
    }
}

fn check_headers(headers: BTreeMap<String, String>, dialect: &Dialect) -> Result<OwnHeaders, ApiError> {
    if headers.len() > MAX_HEADERS {
        return Err(ApiError::invalid("headers", format!("must have at most {MAX_HEADERS} entries")));
    }
    let mut checked = OwnHeaders::new();
    for (name, value) in headers {
        let fault = |fault: &dyn std::fmt::Display| ApiError::invalid("headers", format!("cannot be sent: {fault}"));
        let name = header::check_name(&name).map_err(|reason| fault(&reason))?;
        if dialect.sets_header(&name) {
            return Err(fault(&format_args!("{name} is set by the dialect {}", dialect.name)));
        }
        header::check_value(&name, &value).map_err(|reason| fault(&reason))?;
        if checked.insert(name.to_string(), value).is_some() {
            return Err(fault(&format_args!("{name} is given twice")));
        }
    }
    Ok(checked)
}
