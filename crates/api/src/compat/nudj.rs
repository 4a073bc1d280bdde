//! Nudj's configuration API: `/webhooks/configs` and `/webhooks/logs`.

use std::collections::BTreeMap;

use axum::extract::State;
use fanfare_domain::{
    endpoint::{EndpointStatus, secret::SigningSecret},
    ids::{EndpointId, SecretId},
};
use fanfare_store::{EndpointFilter, EndpointRow, EndpointSettings, EndpointUpsert, NewEndpoint, Upserted};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        answer::{Answer, Page},
        authentication::AuthorizedApplication,
        body::{RawJson, from_json, malformed, missing},
        error::{ApiError, ErrorCode, Failures},
        paging::{PageQuery, page_size},
        parameters::{Query, id},
    },
    routes::{
        deliveries::attempts::{self, AttemptLog},
        webhooks::settings::{Change, too_many_webhooks},
    },
    state::{ApiState, applications::ApplicationRules},
};

/// The maximum number of configurations in a request, and on a page.
const MAX_CONFIGS: usize = 100;

/// The configuration of a webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookConfig)]
pub(crate) struct Config {
    #[schema(value_type = String, example = "wh_01h455vb4pex5vsknk084sn02q")]
    id: EndpointId,
    name: Option<String>,
    url: String,
    event_types: Vec<String>,
    enabled: bool,
    /// The names of the webhook's own headers. The values are never shown.
    headers: Vec<String>,
    /// The signing secret, shown only when the configuration is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl Config {
    fn new(row: EndpointRow, secret: Option<&SigningSecret>) -> Self {
        Self {
            id: row.id,
            name: row.name,
            url: row.url,
            event_types: row.event_types,
            enabled: row.status != EndpointStatus::Disabled,
            headers: row.header_names,
            secret: secret.map(|secret| secret.text().to_owned()),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A configuration to create or change (upsert). `id` selects the configuration, or without an `id` the `url` does. An
/// unknown `url` creates a configuration. Omitted fields keep their value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookConfigPut)]
pub(crate) struct PutConfig {
    id: Option<String>,
    url: Option<String>,
    /// Required for a new configuration.
    event_types: Option<Vec<String>>,
    /// The new signing secret; replaces all previous secrets at once. Default for a new configuration: a generated
    /// secret.
    #[schema(write_only)]
    secret: Option<String>,
    enabled: Option<bool>,
    name: Option<String>,
    /// Required for another origin of the `url` (scheme, host or port), if the configuration has own headers.
    headers: Option<BTreeMap<String, String>>,
}

/// A configuration, or a list of configurations.
#[derive(ToSchema)]
#[schema(as = WebhookConfigPuts)]
#[serde(untagged)]
// Entries are parsed singly, so that an error names the entry at fault.
#[expect(dead_code, reason = "for the OpenAPI document")]
pub(crate) enum PutConfigs {
    /// A single configuration.
    One(PutConfig),
    /// 1 to 100 configurations. Either all are created or changed, or none.
    Several(Vec<PutConfig>),
}

/// The routes of Nudj's configuration API. Ingest serves the routes at the root and below `/api/v2/admin`.
pub fn nudj_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, put)).routes(routes!(logs))
}

/// Lists the webhook configurations, newest first.
#[utoipa::path(get, path = "/webhooks/configs", operation_id = "list_webhook_configs", tag = "webhook configs",
    params(PageQuery), responses((status = 200, body = Page<Config>), Failures))]
pub(crate) async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(page): Query<PageQuery>,
) -> Result<Page<Config>, ApiError> {
    let before = page.before.as_deref().map(|text| id("before", text)).transpose()?;
    let size = page_size(page.limit.or(Some(MAX_CONFIGS)))?;
    let filter = EndpointFilter { before, limit: size.rows(), ..EndpointFilter::default() };
    let rows = api.store.endpoints(authorized.application, &filter).await?;
    let configs = rows.into_iter().map(|row| Config::new(row, None)).collect();
    Ok(Page::of(configs, size, |config| config.id.to_string()))
}

/// Creates or changes webhook configurations, all or none.
#[utoipa::path(put, path = "/webhooks/configs", operation_id = "put_webhook_configs", tag = "webhook configs",
    request_body = PutConfigs, responses((status = 200, body = Answer<Vec<Config>>), Failures))]
pub(crate) async fn put(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    RawJson(body): RawJson,
) -> Result<Answer<Vec<Config>>, ApiError> {
    let configs = configs(&body)?;
    let is_list = configs.is_list;
    let rules = api.rules_of(&authorized).await?;
    let mut puts = Vec::new();
    for (position, config) in configs.all.into_iter().enumerate() {
        let put = api.put_of(&authorized, config, &rules);
        puts.push(put.map_err(|error| placed(error, is_list, position))?);
    }
    let vetted = join_all(puts.iter().map(|put| api.vet(&put.settings))).await;
    for (position, vetted) in vetted.into_iter().enumerate() {
        vetted.map_err(|error| placed(error, is_list, position))?;
    }
    for (position, put) in puts.iter_mut().enumerate() {
        let Some(id) = put.id else { continue };
        let checked = async {
            api.check_header_of_change(&authorized, id, &put.settings).await?;
            api.check_headers_of_move(&authorized, id, &mut put.settings).await?;
            api.check_reader(&authorized, id, &put.settings).await
        };
        checked.await.map_err(|error| placed(error, is_list, position))?;
    }
    let mut answers = Vec::new();
    let most = api.max_webhooks(&authorized).await?;
    let put = api.store.put_endpoints(authorized.application, &puts, most).await?;
    for (position, put) in put.into_iter().enumerate() {
        answers.push(api.config_of(put, most).map_err(|error| placed(error, is_list, position))?);
    }
    Ok(Answer::of(answers))
}

struct Configs {
    all: Vec<PutConfig>,
    is_list: bool,
}

fn configs(body: &[u8]) -> Result<Configs, ApiError> {
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_list {
        return Ok(Configs { all: vec![from_json(body)?], is_list });
    }
    let entries: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if entries.is_empty() || entries.len() > MAX_CONFIGS {
        let message = format!("the list must have 1 to {MAX_CONFIGS} configurations");
        return Err(ApiError::new(ErrorCode::InvalidBatch, message));
    }
    let read = |(position, entry): (usize, &&RawValue)| {
        from_json(entry.get().as_bytes()).map_err(|error| placed(error, is_list, position))
    };
    Ok(Configs { all: entries.iter().enumerate().map(read).collect::<Result<_, _>>()?, is_list })
}

/// Adds the position in the list to an error.
fn placed(error: ApiError, is_list: bool, position: usize) -> ApiError {
    if is_list { error.within(&format!("[{position}]")) } else { error }
}

impl ApiState {
    fn put_of(
        &self,
        authorized: &AuthorizedApplication,
        config: PutConfig,
        rules: &ApplicationRules,
    ) -> Result<EndpointUpsert, ApiError> {
        let given_secret = config.secret.map(|secret| self.secret(Some(secret))).transpose()?;
        let endpoint = config.id.as_deref().map(|text| id("id", text)).transpose()?;
        if endpoint.is_none() && config.url.is_none() {
            return Err(missing("url"));
        }
        if let Some(events) = &config.event_types {
            // Nudj refuses undescribed types.
            rules.catalogue.check_subscriptions("event_types", events, true)?;
        }
        let change = Change {
            url: config.url,
            events: config.event_types,
            name: config.name.map(Some),
            headers: config.headers,
            ..Change::default()
        };
        let status = |enabled| if enabled { EndpointStatus::Enabled } else { EndpointStatus::Disabled };
        let settings = EndpointSettings {
            status: config.enabled.map(status),
            // A paused webhook reads `enabled: true`: writing the same value back must not resume the webhook.
            keeps_pause: true,
            ..self.settings(change, &rules.dialect)?
        };
        let (now, is_whole) = (self.store.now(), settings.url.is_some() && settings.event_types.is_some());
        let new = is_whole.then(|| NewEndpoint {
            id: EndpointId::new(now, rand::random()),
            application: authorized.application,
            settings: settings.clone(),
            secret_id: SecretId::new(now, rand::random()),
            secret: given_secret.clone().unwrap_or_else(|| SigningSecret::from_random(rand::random())),
        });
        let secret = given_secret.map(|secret| (SecretId::new(now, rand::random()), secret));
        Ok(EndpointUpsert { id: endpoint, settings, secret, new })
    }

    fn config_of(&self, upserted: Upserted, most: usize) -> Result<Config, ApiError> {
        match upserted {
            Upserted::Created(row, secret) => Ok(Config::new(*row, Some(&secret))),
            Upserted::Changed(row) => Ok(Config::new(*row, None)),
            Upserted::NoSuchId => Err(ApiError::not_found("id", "no webhook configuration has this id")),
            Upserted::NothingToCreate => Err(missing("event_types")),
            Upserted::Ambiguous => {
                let message = "several webhook configurations have this URL: select a configuration by `id`";
                Err(ApiError::new(ErrorCode::AmbiguousUrl, message).at("url"))
            }
            Upserted::TooMany => Err(too_many_webhooks(most)),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogFilter {
    /// Only attempts of this configuration.
    config: Option<String>,
    /// Only attempts of this event.
    event: Option<String>,
    /// The `next` of the previous page.
    before: Option<String>,
    /// 1 to 100. Default: 50.
    limit: Option<usize>,
}

/// Lists all attempts, newest first.
#[utoipa::path(get, path = "/webhooks/logs", operation_id = "list_webhook_logs", tag = "webhook configs",
    params(LogFilter), responses((status = 200, body = Page<AttemptLog>), Failures))]
pub(crate) async fn logs(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<LogFilter>,
) -> Result<Page<AttemptLog>, ApiError> {
    let LogFilter { config, event, before, limit } = filter;
    let webhook: Option<EndpointId> = config.as_deref().map(|text| id("config", text)).transpose()?;
    let webhook = webhook.map(|webhook| webhook.to_string());
    let filter = attempts::LogFilter { webhook, event, before, limit, ..attempts::LogFilter::default() };
    attempts::log(State(api), authorized, Query(filter)).await
}
