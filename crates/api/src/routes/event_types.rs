//! `/api/v1/event-types`: the catalogue of an application, with the types of the dialect and the application's own
//! types.

pub mod import;
pub mod schemas;

use axum::extract::State;
use fanfare_domain::{
    event::{
        Event, EventType,
        catalogue::{Catalogue, EMPTY_SAMPLE, EventTypeDescription},
        description::{Effect, PlannedType, Wanted, WantedType, plan},
        schema::Schema,
    },
    ids::EventId,
    json,
};
use fanfare_service::trace_of;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use tracing::Span;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::{Accepted, Answer, Created, Page},
        authentication::AuthorizedApplication,
        body::{JsonBody, even_null},
        error::{ApiError, ErrorCode, Failures},
        paging::{PageQuery, page_size},
        parameters::{Path, Query, check_display_name},
    },
    routes::events::publish::Published,
    state::ApiState,
};

/// The largest sample, in bytes.
pub(crate) const MAX_SAMPLE: usize = 32 * 1024;

/// A described event type.
#[derive(Serialize, ToSchema)]
pub struct DescribedType {
    #[schema(example = "points.earned")]
    pub name: String,
    pub category: Option<String>,
    pub description: Option<String>,
    /// The default data of a test event. Generated from the schema if the type has a schema and no sample of its own.
    #[schema(value_type = Value)]
    pub sample: Option<Box<RawValue>>,
    /// The newest version of the type's schema; `null` without a schema.
    #[schema(example = 1)]
    pub schema_version: Option<u32>,
    /// `dialect`, or `application` for the application's own types.
    #[schema(example = "dialect")]
    pub source: &'static str,
}

impl DescribedType {
    fn new(described: &EventTypeDescription, source: &'static str) -> Self {
        Self {
            name: described.name.to_string(),
            category: described.category.clone(),
            description: described.description.clone(),
            sample: RawValue::from_string(described.sample.clone()).ok(),
            schema_version: described.schema_version,
            source,
        }
    }
}

/// A described event type with its schema.
#[derive(Serialize, ToSchema)]
pub struct ShownType {
    #[serde(flatten)]
    pub described: DescribedType,
    /// JSON Schema of the data, draft 2020-12; `null` without a schema.
    #[schema(value_type = Value)]
    pub schema: Option<Box<RawValue>>,
}

/// Description of an event type.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEventType)]
pub struct New {
    /// 1 to 128 letters, digits and `_ - . : /`, without a dot at either end.
    #[schema(example = "invoice.paid")]
    pub name: String,
    pub category: Option<String>,
    pub description: Option<String>,
    /// The default data of a test event: any JSON value; `{}` if omitted.
    #[serde(default, deserialize_with = "even_null")]
    #[schema(value_type = Value)]
    pub sample: Option<Box<RawValue>>,
    /// JSON Schema of the data, draft 2020-12. Another schema than the newest becomes the next version. Without the
    /// member, the schemas stay; `null` removes all versions.
    #[serde(default, deserialize_with = "even_null")]
    #[schema(value_type = Value)]
    pub schema: Option<Box<RawValue>>,
}

/// Lists the event types: first the dialect's types, then the application's own types.
#[utoipa::path(get, path = "/event-types", operation_id = "list_event_types", tag = "event types",
    params(PageQuery), responses((status = 200, body = Page<DescribedType>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(paging): Query<PageQuery>,
) -> Result<Page<DescribedType>, ApiError> {
    let size = page_size(paging.limit.or(Some(100)))?;
    let mut all = all(&api, &authorized).await?;
    if let Some(before) = paging.before {
        let position = all.iter().position(|described| described.name == before);
        let position = position.ok_or_else(|| ApiError::invalid("before", "must be the `next` of a previous page"))?;
        all.drain(..=position);
    }
    all.truncate(size.rows());
    Ok(Page::of(all, size, |described| described.name.clone()))
}

/// All event types of an application, in the order of [`list`].
///
/// # Errors
/// For an unknown dialect, and while the database is away.
pub async fn all(api: &ApiState, authorized: &AuthorizedApplication) -> Result<Vec<DescribedType>, ApiError> {
    let dialect = api.dialect_of(authorized).await?;
    let own = Catalogue::new(api.store.event_types(authorized.application).await?);
    let of_dialect = dialect.catalogue.types().iter().filter(|described| own.get(&described.name).is_none());
    let all = of_dialect
        .map(|described| DescribedType::new(described, "dialect"))
        .chain(own.types().iter().map(|described| DescribedType::new(described, "application")));
    Ok(all.collect())
}

/// Shows the description and the schema of an event type.
#[utoipa::path(get, path = "/event-types/{name}", operation_id = "show_event_type", tag = "event types",
    params(("name" = String, Path)), responses((status = 200, body = Answer<ShownType>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(name): Path<String>,
) -> Result<Answer<ShownType>, ApiError> {
    let found = all(&api, &authorized).await?.into_iter().find(|described| described.name == name);
    let missing = || ApiError::not_found("name", "no event type of this name is described");
    let described = found.ok_or_else(missing)?;
    let event_type = EventType::parse(&name).map_err(|_| missing())?;
    let row = match described.schema_version {
        Some(version) => api.store.event_schema(authorized.application, &event_type, Some(version)).await?,
        None => None,
    };
    let schema = row.and_then(|row| RawValue::from_string(row.schema).ok());
    Ok(Answer::of(ShownType { described, schema }))
}

/// Describes an event type of the application. Replaces all of a previous description of the same name, but for the
/// schemas: a schema becomes the next version.
#[utoipa::path(post, path = "/event-types", operation_id = "describe_event_type", tag = "event types",
    request_body = New, responses((status = 201, body = Answer<DescribedType>), Failures))]
pub async fn create(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Created<DescribedType>, ApiError> {
    api.dialect_of(&authorized).await?;
    let name = EventType::parse(&new.name).map_err(|fault| ApiError::from(fault).at("name"))?;
    for (field, text) in [("category", &new.category), ("description", &new.description)] {
        text.as_ref().map_or(Ok(()), |text| check_display_name(field, text))?;
    }
    let sample = match &new.sample {
        Some(sample) => Wanted::Value(checked_data("sample", sample, MAX_SAMPLE)?),
        None => Wanted::None,
    };
    let schema = match &new.schema {
        None => Wanted::Keep,
        Some(schema) if schema.get() == "null" => Wanted::None,
        Some(schema) => {
            let schema = Schema::parse(schema.get()).map_err(|fault| ApiError::invalid("schema", fault))?;
            // Made here, where no lock is held.
            schema.sample();
            Wanted::Value(schema)
        }
    };
    let given = |text: Option<String>| text.map_or(Wanted::None, Wanted::Value);
    let (category, description) = (given(new.category), given(new.description));
    let names = [name.clone()];
    let wanted = [WantedType { name, category, description, sample, schema }];
    let planned = api.store.change_event_types(authorized.application, &names, |known| (plan(known, &wanted), true));
    described(planned.await?.into_iter().next()).map(Created)
}

/// The type after a change.
fn described(planned: Option<PlannedType>) -> Result<DescribedType, ApiError> {
    let (name, after) = match planned {
        Some(PlannedType { effect: Effect::Refused(fault), .. }) => return Err(fault.into()),
        Some(PlannedType { name, after: Some(after), .. }) => (name, after),
        _ => return Err(ApiError::new(ErrorCode::InternalError, "internal fault: report the request to the operator")),
    };
    let schema = after.schema.as_ref();
    let generated = schema.filter(|_| after.sample == EMPTY_SAMPLE).map(|schema| schema.sample.clone());
    let described = EventTypeDescription {
        name,
        category: after.category,
        description: after.description,
        schema_version: schema.map(|schema| schema.version),
        sample: generated.unwrap_or(after.sample),
    };
    Ok(DescribedType::new(&described, "application"))
}

/// Publishes the sample of a described event type as a real event, to all webhooks that want the type. For a single
/// webhook, send a test event.
#[utoipa::path(post, path = "/event-types/{name}/publish", operation_id = "publish_sample", tag = "event types",
    params(("name" = String, Path)), responses((status = 202, body = Answer<Published>), Failures))]
pub async fn publish(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(name): Path<String>,
) -> Result<Accepted<Published>, ApiError> {
    let application = api.publishing.application(authorized.application)?;
    let described = show(State(api.clone()), authorized, Path(name)).await?.data.described;
    let event_type = EventType::parse(&described.name).map_err(|fault| ApiError::from(fault).at("name"))?;
    let data = described.sample.map_or_else(|| EMPTY_SAMPLE.to_owned(), |sample| sample.get().to_owned());
    application.check_event(&event_type, None, &data)?;
    api.publishing.check_quotas(&application)?;
    api.publishing.take(&application, 1)?;
    let body = format!("{{\"type\":{},\"data\":{data}}}", Value::from(event_type.as_str()));
    let id = EventId::new(application.id, api.directory.now(), rand::random());
    let event = Event { trace: trace_of(&Span::current()), ..Event::new(id, application.id, event_type, data) };
    let event = api.publishing.send(&application, event, body.as_bytes()).await.map_err(|error| match error.code {
        // A repetition has another id.
        ErrorCode::OutcomeUnknown => {
            let message = "the event may be accepted: look at the events before you publish again";
            ApiError::new(ErrorCode::OutcomeUnknown, message).retry_after(5)
        }
        _ => error,
    })?;
    Ok(Accepted(Published { id: event.id }))
}

/// Result of the removal of an event type.
#[derive(Serialize, ToSchema)]
pub struct Removed {
    pub name: String,
    #[schema(example = true)]
    pub deleted: bool,
}

/// Removes an event type of the application. Subscriptions to the type stay.
#[utoipa::path(delete, path = "/event-types/{name}", operation_id = "remove_event_type", tag = "event types",
    params(("name" = String, Path)), responses((status = 200, body = Answer<Removed>), Failures))]
pub async fn delete(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(name): Path<String>,
) -> Result<Answer<Removed>, ApiError> {
    let missing = || ApiError::not_found("name", "the application has no own event type of this name");
    let event_type = EventType::parse(&name).map_err(|_| missing())?;
    if !api.store.remove_event_type(authorized.application, &event_type).await? {
        return Err(missing());
    }
    Ok(Answer::of(Removed { name, deleted: true }))
}

/// Checks the data of a test event, at most `most` bytes as compact JSON. Returns the compact JSON.
pub(crate) fn checked_data(field: &str, data: &RawValue, most: usize) -> Result<String, ApiError> {
    let data = json::compact(data.get());
    if data.len() > most {
        return Err(ApiError::new(ErrorCode::FieldTooLong, format!("`{field}` is longer than {most} bytes")).at(field));
    }
    json::check(&data).map_err(|fault| ApiError::invalid(field, format!("cannot be sent: {fault}")))?;
    Ok(data)
}
