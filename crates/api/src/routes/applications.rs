//! `/api/v1/applications` and `/api/v1/dialects`.

pub mod signing_keys;

use std::collections::BTreeMap;

use axum::extract::State;
use fanfare_domain::{
    application::{
        label::{check_labels, parse_label},
        plan::check_plan_name,
    },
    dialect::{DEFAULT_DIALECT, Dialect},
    endpoint::{email::check_email, redaction::Redaction},
    ids::ApplicationId,
};
use fanfare_store::{ApplicationChange, ApplicationFilter, ApplicationRow, NewApplication, Selected};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Created, Page},
        authentication::{Administrator, KeyApplication},
        body::{JsonBody, nullable},
        error::{ApiError, ErrorCode, Failures},
        paging::Paging,
        parameters::{Path, Query, check_display_name, id},
    },
    routes::plans::Limits,
    state::ApiState,
};

/// An application: the tenant that owns webhooks, event types and keys.
#[derive(Serialize, ToSchema)]
pub struct Application {
    #[schema(value_type = String, example = "app_01h455vb4pex5vsknk084sn02q")]
    pub id: ApplicationId,
    pub name: String,
    /// The dialect: the format of deliveries, the default retry schedule, and the built-in event types.
    #[schema(example = "incenta")]
    pub dialect: String,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub strict: bool,
    /// The e-mail address for failure notices, if the dialect sends notices.
    pub email: Option<String>,
    /// The name of the plan, whose limits are those of the application.
    #[schema(example = "free")]
    pub plan: Option<String>,
    /// The application's own limits. Each replaces the plan's; `null` for the limit of the plan or the deployment.
    #[serde(flatten)]
    pub limits: Limits,
    /// Labels by which operators find and sum up applications. Only for an admin key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Members of bodies with values to hide: `password` at any depth, `card.number` in each `card`. Webhooks receive
    /// the values. Fanfare stores the values encrypted, and neither the API nor the database shows a value. Responses
    /// of webhooks are stored without the values.
    pub redacted: Vec<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<ApplicationRow> for Application {
    fn from(row: ApplicationRow) -> Self {
        let ApplicationRow { id, name, dialect, is_strict, email, limits, plan, labels, redacted, created_at } = row;
        let (limits, labels) = (limits.into(), Some(labels));
        Self { id, name, dialect, strict: is_strict, email, plan, limits, labels, redacted, created_at }
    }
}

impl Application {
    /// The application for a key: labels are notes of the operators.
    fn shown_to(row: ApplicationRow, application_of_key: Option<ApplicationId>) -> Self {
        let mut shown = Self::from(row);
        if application_of_key.is_some() {
            shown.labels = None;
        }
        shown
    }
}

/// An application to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApplication)]
pub struct New {
    pub name: String,
    /// A dialect of `GET /api/v1/dialects`. Default: `incenta`.
    pub dialect: Option<String>,
    pub strict: Option<bool>,
    pub email: Option<String>,
}

/// Creates an application. Requires an admin key.
#[utoipa::path(post, path = "/applications", operation_id = "create_application", tag = "applications",
    request_body = New, responses((status = 201, body = Answer<Application>), Failures))]
pub async fn create(
    State(api): State<ApiState>,
    _: Administrator,
    JsonBody(new): JsonBody<New>,
) -> Result<Created<Application>, ApiError> {
    let id = ApplicationId::new(api.store.now(), rand::random());
    create_as(&api, id, new).await.map(Created)
}

/// Creates an application under an id. If the id is known, an earlier request created the application: changes nothing.
///
/// # Errors
/// Errors of the same request to the API.
pub async fn create_as(api: &ApiState, id: ApplicationId, new: New) -> Result<Application, ApiError> {
    check_display_name("name", &new.name)?;
    let dialect = new.dialect.unwrap_or_else(|| DEFAULT_DIALECT.to_owned());
    api.check_dialect(&dialect)?;
    let email = new.email.map(checked_email).transpose()?;
    if let Some(known) = api.store.application(id).await? {
        return Ok(known.into());
    }
    let new = NewApplication { id, name: new.name, dialect, is_strict: new.strict.unwrap_or_default(), email };
    Ok(api.store.create_application(&new).await?.into())
}

/// Selects the applications of a list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFilter {
    /// Only applications with this text in their name, in any case. A page looks through at most 10,000 applications.
    pub name: Option<String>,
    /// Only applications with this label, `key:value`.
    pub label: Option<String>,
    /// Only applications in this plan.
    pub plan: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the applications, newest first. Requires an admin key.
#[utoipa::path(get, path = "/applications", operation_id = "list_applications", tag = "applications",
    params(ListFilter), responses((status = 200, body = Page<Application>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    _: Administrator,
    Query(filter): Query<ListFilter>,
) -> Result<Page<Application>, ApiError> {
    let (before, size) = Paging { before: filter.before, limit: filter.limit }.parse()?;
    filter.name.as_deref().map(|name| check_display_name("name", name)).transpose()?;
    let selected = selected(filter.label.as_deref(), filter.plan)?;
    let filter = ApplicationFilter { before, name: filter.name, selected, limit: size.rows() };
    let page = api.store.applications(&filter).await?;
    let applications = page.applications.into_iter().map(Application::from).collect();
    let passed = page.passed.map(|passed| passed.to_string());
    Ok(Page::of(applications, size, |application| application.id.to_string()).or_next(passed))
}

/// Shows an application.
#[utoipa::path(get, path = "/applications/{id}", operation_id = "show_application", tag = "applications",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Application>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
) -> Result<Answer<Application>, ApiError> {
    let application = reached(&application, application_of_key)?;
    let row = api.store.application(application).await?.ok_or_else(no_such_application)?;
    Ok(Answer::of(Application::shown_to(row, application_of_key)))
}

/// Changes to an application. Omitted fields keep their value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApplicationChange)]
pub struct Change {
    pub name: Option<String>,
    /// The dialect of future events. Events accepted before keep their body; the new dialect signs and retries their
    /// deliveries.
    pub dialect: Option<String>,
    pub strict: Option<bool>,
    /// `null` removes the address.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
    /// The name of a plan; `null` for none. Requires an admin key, as all limits and labels.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub plan: Option<Option<String>>,
    /// 1 to 1000000; `null` for the limit of the plan or the deployment.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    pub publish_rate_per_second: Option<Option<u32>>,
    /// 1 to 10^15; `null` for the plan's quota.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    pub events_per_day: Option<Option<u64>>,
    /// 1 to 10^15; `null` for the plan's quota.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    pub stored_bytes: Option<Option<u64>>,
    /// 1 to 1000000; `null` for the limit of the plan or the deployment.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    pub max_webhooks: Option<Option<u32>>,
    /// All labels, at most 16: keys of 1 to 63 small letters, digits and `. _ / -`, values of at most 128 characters.
    pub labels: Option<BTreeMap<String, String>>,
    /// The complete list, at most 100 members. Stored events and responses do not change.
    pub redacted: Option<Vec<String>>,
}

/// Changes an application. Omitted fields keep their value.
#[utoipa::path(patch, path = "/applications/{id}", operation_id = "change_application", tag = "applications",
    params(("id" = String, Path)), request_body = Change,
    responses((status = 200, body = Answer<Application>), Failures))]
pub async fn change(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
    JsonBody(change): JsonBody<Change>,
) -> Result<Answer<Application>, ApiError> {
    let application = reached(&application, application_of_key)?;
    check(&api, &change)?;
    if let Some(member) = change.of_operators().filter(|_| application_of_key.is_some()) {
        let message = "only an admin key may change plan, limits and labels of an application";
        return Err(ApiError::new(ErrorCode::Forbidden, message).at(member));
    }
    if let Some(plan) = change.plan.iter().flatten().next()
        && api.store.plan(plan).await?.is_none()
    {
        return Err(no_plan(plan));
    }
    let plan = change.plan.clone().flatten();
    let change = ApplicationChange {
        name: change.name,
        dialect: change.dialect,
        is_strict: change.strict,
        email: change.email.map(|email| email.map(checked_email).transpose()).transpose()?,
        publish_rate: change.publish_rate_per_second,
        events_per_day: change.events_per_day,
        stored_bytes: change.stored_bytes,
        max_webhooks: change.max_webhooks,
        plan: change.plan,
        labels: change.labels,
        redacted: change.redacted,
    };
    let changed = api.store.change_application(application, &change).await;
    let row = changed.map_err(|error| match plan {
        // Removed since the look.
        Some(plan) if error.breaks_reference() => no_plan(&plan),
        _ => error.into(),
    })?;
    let row = row.ok_or_else(no_such_application)?;
    Ok(Answer::of(Application::shown_to(row, application_of_key)))
}

/// Checks the values of a change.
///
/// # Errors
/// Errors of the same request to the API.
pub fn check(api: &ApiState, change: &Change) -> Result<(), ApiError> {
    if let Some(name) = &change.name {
        check_display_name("name", name)?;
    }
    if let Some(dialect) = &change.dialect {
        api.check_dialect(dialect)?;
    }
    if let Some(names) = &change.redacted {
        Redaction::parse(names).map_err(|fault| ApiError::invalid("redacted", fault))?;
    }
    change.limits().checked()?;
    if let Some(plan) = change.plan.iter().flatten().next() {
        check_plan_name(plan).map_err(|_| no_plan(plan))?;
    }
    if let Some(labels) = &change.labels {
        check_labels(labels).map_err(|fault| ApiError::invalid("labels", fault))?;
    }
    change.email.clone().flatten().map(checked_email).transpose().map(drop)
}

impl Change {
    fn limits(&self) -> Limits {
        Limits {
            publish_rate_per_second: self.publish_rate_per_second.flatten(),
            events_per_day: self.events_per_day.flatten(),
            stored_bytes: self.stored_bytes.flatten(),
            max_webhooks: self.max_webhooks.flatten(),
        }
    }

    /// The first changed member that only operators may change: the members decide about bills.
    fn of_operators(&self) -> Option<&'static str> {
        let changed = [
            ("publish_rate_per_second", self.publish_rate_per_second.is_some()),
            ("events_per_day", self.events_per_day.is_some()),
            ("stored_bytes", self.stored_bytes.is_some()),
            ("max_webhooks", self.max_webhooks.is_some()),
            ("plan", self.plan.is_some()),
            ("labels", self.labels.is_some()),
        ];
        changed.into_iter().find(|(_, is_changed)| *is_changed).map(|(member, _)| member)
    }
}

/// Label and plan of a list's filter.
pub(crate) fn selected(label: Option<&str>, plan: Option<String>) -> Result<Selected, ApiError> {
    let label = label.map(parse_label).transpose().map_err(|fault| ApiError::invalid("label", fault))?;
    let labels = label.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if let Some(plan) = &plan {
        check_plan_name(plan).map_err(|fault| ApiError::invalid("plan", fault))?;
    }
    Ok(Selected { labels, plan })
}

/// The application in the path. A key of another application gets 404, as for an unknown id.
pub(crate) fn reached(application: &str, of_key: Option<ApplicationId>) -> Result<ApplicationId, ApiError> {
    let application = id("id", application)?;
    match of_key {
        Some(own) if own != application => Err(no_such_application()),
        _ => Ok(application),
    }
}

pub(crate) fn checked_email(email: String) -> Result<String, ApiError> {
    check_email(&email).map_err(|fault| ApiError::invalid("email", fault))?;
    Ok(email)
}

fn no_plan(name: &str) -> ApiError {
    ApiError::invalid("plan", format!("is {name:?}, and no plan has this name: create the plan first"))
}

pub(crate) fn no_such_application() -> ApiError {
    ApiError::not_found("id", "no application has this id, or the key belongs to another application")
}

/// A dialect, as listed.
#[derive(Serialize, ToSchema)]
#[schema(as = Dialect)]
pub struct ListedDialect {
    /// The value of an application's field `dialect`.
    pub name: String,
    pub title: String,
    pub description: String,
    /// The wait after each failed attempt.
    pub schedule: Vec<String>,
    /// The maximum random increase of each wait, in percent.
    pub jitter_percent: u8,
    /// The number of failed attempts after which a delivery fails.
    pub max_attempts: usize,
    pub timeout_ms: u128,
    /// The header of the dialect's own signature; `null` for a dialect without.
    pub signature_header: Option<String>,
    /// An example of a delivery's body.
    pub example: String,
}

impl ListedDialect {
    fn new(dialect: &Dialect) -> Self {
        Self {
            name: dialect.name.clone(),
            title: dialect.title.clone(),
            description: dialect.description.clone(),
            schedule: dialect.policy.schedule.names(),
            jitter_percent: dialect.policy.jitter_percent,
            max_attempts: dialect.policy.schedule.max_attempts(),
            timeout_ms: dialect.policy.timeout.as_millis(),
            signature_header: dialect.signature.as_ref().map(|signature| signature.header.to_string()),
            example: dialect.example_body().unwrap_or_default(),
        }
    }
}

/// Lists the dialects available to applications.
#[utoipa::path(get, path = "/dialects", operation_id = "list_dialects", tag = "applications",
    responses((status = 200, body = Answer<Vec<ListedDialect>>), Failures))]
pub async fn dialects(State(api): State<ApiState>, _: KeyApplication) -> Answer<Vec<ListedDialect>> {
    Answer::of(api.dialects.all().into_iter().map(|dialect| ListedDialect::new(dialect)).collect())
}

impl ApiState {
    fn check_dialect(&self, name: &str) -> Result<(), ApiError> {
        if self.dialects.get(name).is_some() {
            return Ok(());
        }
        let all = self.dialects.all();
        let known: Vec<&str> = all.iter().map(|dialect| dialect.name.as_str()).collect();
        Err(ApiError::invalid("dialect", format!("must be one of {}", known.join(", "))))
    }
}
