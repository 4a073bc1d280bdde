//! `/api/v1/plans`: named limits of applications. Only administrators have access.

use axum::extract::State;
use fanfare_domain::application::plan::{Limits as Merged, check_plan_name};
use fanfare_store::{PlanRemoval, PlanRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::Administrator,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::Path,
    },
    state::ApiState,
};

/// Limits of an application, or of the applications in a plan. `null`: no limit here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Limits {
    /// The maximum of events per second over HTTP, at each ingest process: 1 to 1000000.
    pub publish_rate_per_second: Option<u32>,
    /// The quota of events in a UTC day: 1 to 10^15.
    pub events_per_day: Option<u64>,
    /// The quota of stored bytes, of the bodies of events within the retention: 1 to 10^15.
    pub stored_bytes: Option<u64>,
    /// The maximum of webhooks: 1 to 1000000.
    pub max_webhooks: Option<u32>,
}

impl From<Merged> for Limits {
    fn from(limits: Merged) -> Self {
        let Merged { publish_rate, events_per_day, stored_bytes, max_webhooks } = limits;
        Self { publish_rate_per_second: publish_rate, events_per_day, stored_bytes, max_webhooks }
    }
}

impl Limits {
    /// The limits in their ranges.
    ///
    /// # Errors
    /// The first limit beyond its range.
    pub(crate) fn checked(self) -> Result<Merged, ApiError> {
        let Self { publish_rate_per_second, events_per_day, stored_bytes, max_webhooks } = self;
        let limits = Merged { publish_rate: publish_rate_per_second, events_per_day, stored_bytes, max_webhooks };
        limits.check().map_err(|fault| ApiError::invalid(fault.member, &fault))?;
        Ok(limits)
    }
}

/// The limits of a plan. An omitted limit, or `null`, is no limit.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPlan)]
pub struct New {
    /// 1 to 1000000.
    pub publish_rate_per_second: Option<u32>,
    /// 1 to 10^15.
    pub events_per_day: Option<u64>,
    /// 1 to 10^15.
    pub stored_bytes: Option<u64>,
    /// 1 to 1000000.
    pub max_webhooks: Option<u32>,
}

impl From<New> for Limits {
    fn from(new: New) -> Self {
        let New { publish_rate_per_second, events_per_day, stored_bytes, max_webhooks } = new;
        Self { publish_rate_per_second, events_per_day, stored_bytes, max_webhooks }
    }
}

/// A plan: limits that an application takes over by naming the plan.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plan {
    #[schema(example = "free")]
    pub name: String,
    #[serde(flatten)]
    pub limits: Limits,
    /// The number of applications in the plan.
    pub applications: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Timestamp,
}

impl From<PlanRow> for Plan {
    fn from(row: PlanRow) -> Self {
        let PlanRow { name, limits, applications, created_at, changed_at } = row;
        Self { name, limits: limits.into(), applications, created_at, changed_at }
    }
}

/// Lists all plans, by name. Requires an admin key.
#[utoipa::path(get, path = "/plans", operation_id = "list_plans", tag = "applications",
    responses((status = 200, body = Answer<Vec<Plan>>), Failures))]
pub async fn list(State(api): State<ApiState>, _: Administrator) -> Result<Answer<Vec<Plan>>, ApiError> {
    Ok(Answer::of(api.store.plans().await?.into_iter().map(Plan::from).collect()))
}

/// Shows a plan. Requires an admin key.
#[utoipa::path(get, path = "/plans/{name}", operation_id = "show_plan", tag = "applications",
    params(("name" = String, Path)), responses((status = 200, body = Answer<Plan>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    _: Administrator,
    Path(name): Path<String>,
) -> Result<Answer<Plan>, ApiError> {
    check_plan_name(&name).map_err(|_| no_such_plan())?;
    let row = api.store.plan(&name).await?.ok_or_else(no_such_plan)?;
    Ok(Answer::of(row.into()))
}

/// Creates a plan, or replaces its limits: an omitted limit is no limit. The applications in the plan have the new
/// limits within 10 s. Requires an admin key.
#[utoipa::path(put, path = "/plans/{name}", operation_id = "put_plan", tag = "applications",
    params(("name" = String, Path, description = "1 to 63 small letters, digits, `.`, `_` and `-`")),
    request_body = New, responses((status = 200, body = Answer<Plan>), Failures))]
pub async fn put(
    State(api): State<ApiState>,
    _: Administrator,
    Path(name): Path<String>,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<Plan>, ApiError> {
    check_plan_name(&name).map_err(|fault| ApiError::invalid("name", fault))?;
    Ok(Answer::of(api.store.put_plan(&name, &Limits::from(new).checked()?).await?.into()))
}

/// Result of the removal of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RemovedPlan)]
pub struct Removed {
    pub name: String,
    #[schema(example = true)]
    pub removed: bool,
}

/// Removes a plan without applications. Requires an admin key.
#[utoipa::path(delete, path = "/plans/{name}", operation_id = "delete_plan", tag = "applications",
    params(("name" = String, Path)), responses((status = 200, body = Answer<Removed>), Failures))]
pub async fn delete(
    State(api): State<ApiState>,
    _: Administrator,
    Path(name): Path<String>,
) -> Result<Answer<Removed>, ApiError> {
    check_plan_name(&name).map_err(|_| no_such_plan())?;
    match api.store.remove_plan(&name).await {
        Ok(PlanRemoval::Done) => Ok(Answer::of(Removed { name, removed: true })),
        Ok(PlanRemoval::NoSuchPlan) => Err(no_such_plan()),
        Ok(PlanRemoval::InUse(applications)) => Err(in_use(&format!("{applications} applications are"))),
        // The foreign key: an application has entered the plan meanwhile.
        Err(error) if error.breaks_reference() => Err(in_use("an application is")),
        Err(error) => Err(error.into()),
    }
}

fn in_use(applications: &str) -> ApiError {
    let message = format!("{applications} in this plan: give each another plan first, or none");
    ApiError::new(ErrorCode::PlanInUse, message).at("name")
}

fn no_such_plan() -> ApiError {
    ApiError::not_found("name", "no plan has this name")
}
