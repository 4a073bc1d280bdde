//! Plans: list, create, change, remove.

use askama::Template;
use axum::{
    body::Bytes,
    extract::State,
    response::Response,
    routing::{get, post},
};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
        parameters::Path,
    },
    routes::plans::{self, New, Plan},
};
use fanfare_domain::access::session::Right;
use serde_json::json;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        respond::{back_to, page, page_with},
    },
    routes::list::Routes,
    session::visitor::Visitor,
};

/// The limits of a plan.
const LIMITS: [&str; 4] = ["publish_rate_per_second", "events_per_day", "stored_bytes", "max_webhooks"];

/// The pages below `/console/plans`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new()
        .route("/plans", get(list).post(put))
        .route("/plans/{name}", get(show))
        .route("/plans/{name}/remove", post(remove))
}

#[derive(Template)]
#[template(path = "operations/plans.html")]
struct Plans {
    frame: Frame,
    plans: Vec<Plan>,
    fields: Fields,
}

impl Plans {
    async fn of(console: &Console, visitor: &Visitor, fields: Fields) -> Result<Self, ApiError> {
        let plans = plans::list(State(console.api.clone()), visitor.administrator()?).await?.data;
        Ok(Self { frame: Frame::new(visitor, "Plans").call("/plans"), plans, fields })
    }

    fn limit(&self, limit: Option<&u64>) -> String {
        limit.map_or_else(|| "–".to_owned(), |limit| marks::number(&i64::try_from(*limit).unwrap_or(i64::MAX)))
    }

    fn small(&self, limit: Option<&u32>) -> String {
        self.limit(limit.copied().map(u64::from).as_ref())
    }
}

/// Lists the plans, with a form for a plan.
async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    let shown = Plans::of(&console, &visitor, Fields::default()).await?;
    page(&visitor, &shown)
}

/// Lists the plans, with a plan in the form.
async fn show(State(console): State<Console>, visitor: Visitor, Path(name): Path<String>) -> Result<Response, Fault> {
    let plan = plans::show(State(console.api.clone()), visitor.administrator()?, Path(name)).await?.data;
    let known = serde_json::to_value(plan.limits).unwrap_or_default();
    let limit = |fields: Fields, name: &&str| {
        fields.with(name, known[*name].as_u64().map(|limit| limit.to_string()).unwrap_or_default())
    };
    let fields = LIMITS.iter().fold(Fields::default().with("name", plan.name), limit);
    let shown = Plans::of(&console, &visitor, fields).await?;
    page(&visitor, &shown)
}

/// Creates or changes the plan of the form.
async fn put(State(console): State<Console>, visitor: Visitor, body: Bytes) -> Result<Response, Fault> {
    visitor.administrator()?;
    let fields = Fields::of_body(&body);
    match made(&console, &visitor, &fields).await {
        Ok(_) => Ok(back_to("/console/plans?done=saved")),
        Err(error) => {
            let status = error.status();
            page_with(status, &visitor, &Plans::of(&console, &visitor, fields.refused(error)).await?)
        }
    }
}

async fn made(console: &Console, visitor: &Visitor, fields: &Fields) -> Result<Plan, ApiError> {
    let mut asked = json!({});
    for limit in LIMITS {
        asked[limit] = fields.number(limit)?;
    }
    let new: New = from_value(&asked)?;
    let name = fields.value("name").trim().to_owned();
    asked["name"] = json!(name);
    let (administrator, name, api) = (visitor.administrator()?, Path(name), console.api.clone());
    let work =
        async move { plans::put(State(api), administrator, name, JsonBody(new)).await.map(|answer| answer.data) };
    visitor.change(console, Right::Operate, ("put_plan", asked), None, work).await
}

/// Removes a plan without applications.
async fn remove(State(console): State<Console>, visitor: Visitor, Path(name): Path<String>) -> Result<Response, Fault> {
    let (administrator, api, asked) = (visitor.administrator()?, console.api.clone(), json!({ "name": name }));
    let work = async move { plans::delete(State(api), administrator, Path(name)).await.map(|answer| answer.data) };
    visitor.change(&console, Right::Operate, ("delete_plan", asked), None, work).await?;
    Ok(back_to("/console/plans?done=deleted"))
}
