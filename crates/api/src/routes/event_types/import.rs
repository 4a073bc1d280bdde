//! `POST /api/v1/event-types/import`: event types of an OpenAPI or AsyncAPI document.

use axum::extract::State;
use fanfare_domain::{
    event::{
        EventFault, EventType,
        description::{Effect, PlannedType, Wanted, WantedType, plan},
        schema::import::{ImportedType, read},
    },
    json,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::RawJson,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Query, check_display_name},
    },
    routes::event_types::MAX_SAMPLE,
    state::ApiState,
};

/// The way of an import.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    /// Only answer, and change nothing.
    dry_run: Option<bool>,
    /// Import the other types if a type is refused. Otherwise none.
    skip_refused: Option<bool>,
}

/// The result of an import.
#[derive(Serialize, ToSchema)]
pub struct Imported {
    /// True if the created and changed types are saved. False for a dry run, and after a refused type.
    pub imported: bool,
    pub types: Vec<ImportResult>,
}

/// The result of an event type.
#[derive(Serialize, ToSchema)]
pub struct ImportResult {
    #[schema(example = "invoice.paid")]
    pub name: String,
    /// `created`, `changed`, `unchanged` or `refused`.
    #[schema(example = "created")]
    pub result: &'static str,
    /// Version of the type's schema after the import.
    pub schema_version: Option<u32>,
    /// The reason of a refusal.
    pub reason: Option<String>,
}

/// Imports event types from a JSON document: the webhooks of OpenAPI 3.0 (`x-webhooks`) or 3.1 (`webhooks`), or the
/// messages of AsyncAPI 2 or 3. All in one commit, or none if a type is refused. Members that the document does not
/// give stay: category, description, sample. A sample that no longer fits is dropped.
#[utoipa::path(post, path = "/event-types/import", operation_id = "import_event_types", tag = "event types",
    params(ImportQuery), request_body = Value, responses((status = 200, body = Answer<Imported>), Failures))]
pub async fn import(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(query): Query<ImportQuery>,
    RawJson(document): RawJson,
) -> Result<Answer<Imported>, ApiError> {
    api.dialect_of(&authorized).await?;
    // A document of many schemas needs a moment.
    let reading = tokio::task::spawn_blocking(move || wanted_types(&document));
    let failed =
        |_| ApiError::new(ErrorCode::InternalError, "internal fault, logged: report the request to the operator");
    let (wanted, refused) = reading.await.map_err(failed)??;
    let (is_dry, skips_refused) = (query.dry_run.unwrap_or(false), query.skip_refused.unwrap_or(false));
    let names: Vec<EventType> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
    let mut imported = false;
    let planned = api
        .store
        .change_event_types(authorized.application, &names, |known| {
            let planned = plan(known, &wanted);
            let is_whole = refused.is_empty() && !planned.iter().any(|planned| reason(planned).is_some());
            imported = !is_dry && (is_whole || skips_refused);
            (planned, imported)
        })
        .await?;
    let mut types: Vec<ImportResult> = planned.iter().map(ImportResult::new).collect();
    types.extend(refused);
    Ok(Answer::of(Imported { imported, types }))
}

impl ImportResult {
    fn new(planned: &PlannedType) -> Self {
        let result = match &planned.effect {
            Effect::Created => "created",
            Effect::Changed => "changed",
            Effect::Unchanged => "unchanged",
            Effect::Refused(_) => "refused",
        };
        Self {
            name: planned.name.to_string(),
            result,
            schema_version: planned.after.as_ref().and_then(|after| Some(after.schema.as_ref()?.version)),
            reason: reason(planned),
        }
    }
}

fn reason(planned: &PlannedType) -> Option<String> {
    match &planned.effect {
        Effect::Refused(fault) => Some(fault.to_string()),
        _ => None,
    }
}

/// The wanted types of a document, and the types that are refused already.
fn wanted_types(document: &[u8]) -> Result<(Vec<WantedType>, Vec<ImportResult>), ApiError> {
    let malformed = |error: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::MalformedJson, format!("the body is not a JSON document: {error}"))
    };
    let text = std::str::from_utf8(document).map_err(|error| malformed(&error))?;
    json::check(text).map_err(|fault| malformed(&fault))?;
    let document: Value = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    let types =
        read(&document).map_err(|fault| ApiError::new(ErrorCode::InvalidField, format!("the document {fault}")))?;
    let (mut wanted, mut refused) = (Vec::new(), Vec::new());
    for imported in types {
        let name = imported.name.clone();
        match wanted_type(imported) {
            Ok(accepted) => wanted.push(accepted),
            Err(reason) => {
                refused.push(ImportResult { name, result: "refused", schema_version: None, reason: Some(reason) });
            }
        }
    }
    Ok((wanted, refused))
}

fn wanted_type(imported: ImportedType) -> Result<WantedType, String> {
    let given = |field: &'static str, text: Option<String>| match text {
        Some(text) => check_display_name(field, &text).map(|()| Wanted::Value(text)).map_err(|error| error.message),
        None => Ok(Wanted::Keep),
    };
    let schema = imported.schema?;
    // Made here, where no lock is held.
    schema.sample();
    Ok(WantedType {
        name: EventType::parse(&imported.name).map_err(|fault: EventFault| fault.to_string())?,
        category: given("category", imported.category)?,
        description: given("description", imported.description)?,
        sample: match imported.sample {
            Some(sample) if sample.len() > MAX_SAMPLE => {
                return Err(format!("its example is longer than {MAX_SAMPLE} bytes"));
            }
            Some(sample) => Wanted::Value(sample),
            None => Wanted::Keep,
        },
        schema: Wanted::Value(schema),
    })
}
