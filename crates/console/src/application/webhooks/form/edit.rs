//! Changes of a webhook: the form, and the confirmation of another URL with a test.

use askama::Template;
use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::{ApiError, ErrorCode},
        parameters::Path,
    },
    routes::{
        event_types::DescribedType,
        webhooks::{self, Webhook},
    },
};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    Console,
    application::webhooks::{
        Named, find,
        form::{
            self, WebhookForm,
            settings::{self, Difference},
        },
        test_send::{result::TestView, try_out},
        title,
    },
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        place::Place,
        respond::{back_to, page, page_with},
    },
};

#[derive(Template)]
#[template(path = "application/webhooks/form/edit.html")]
struct Edit {
    frame: Frame,
    webhook: Webhook,
    title: String,
    form: WebhookForm,
}

#[derive(Template)]
#[template(path = "application/webhooks/form/confirmation.html")]
struct Confirmation {
    frame: Frame,
    webhook: Webhook,
    title: String,
    fields: Fields,
    differences: Vec<Difference>,
    test: Option<TestView>,
    /// Error of the test.
    refusal: Option<String>,
}

/// A webhook, and the types to choose from.
struct Known {
    webhook: Webhook,
    described: Vec<DescribedType>,
}

impl Known {
    async fn find(console: &Console, place: &Place, webhook: &str) -> Result<Self, ApiError> {
        place.visitor.require(Right::Endpoints)?;
        let webhook = find(console, place, webhook).await?;
        Ok(Self { webhook, described: form::described(console, place).await? })
    }

    fn form(&self, fields: Fields) -> WebhookForm {
        WebhookForm::new(&self.described, fields).of_known(&self.webhook.headers)
    }

    fn answer(self, place: &Place, form: WebhookForm) -> Result<Response, Fault> {
        let status = form.fields.error().map_or(StatusCode::OK, ApiError::status);
        let title = title(self.webhook.name.as_deref(), &self.webhook.url);
        let shown = Edit { frame: place.frame("Edit webhook"), webhook: self.webhook, title, form };
        page_with(status, &place.visitor, &shown)
    }

    fn refuse(self, place: &Place, fields: Fields, error: ApiError) -> Result<Response, Fault> {
        let form = self.form(fields.refused(error));
        self.answer(place, form)
    }
}

/// Shows the form with the present settings.
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let known = Known::find(&console, &place, &named.webhook).await?;
    let form = known.form(settings::fields_of(&known.webhook, &known.described));
    known.answer(&place, form)
}

/// Changes the webhook. Another URL is confirmed first.
pub(crate) async fn change(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let known = Known::find(&console, &place, &named.webhook).await?;
    let asked = match settings::change(&fields, &known.webhook, &known.described) {
        Ok(asked) => asked,
        Err(error) => return known.refuse(&place, fields, error),
    };
    match fields.value("intent") {
        "edit" => {
            let form = known.form(fields);
            known.answer(&place, form)
        }
        "check" => match form::check(&console, &place, &fields, &known.described).await {
            Ok(checked) => {
                let form = known.form(fields).checked(checked);
                known.answer(&place, form)
            }
            Err(error) => known.refuse(&place, fields, error),
        },
        "test" => {
            let url = Fields::default().with("url", fields.value("url"));
            let test = try_out(&console, &place, &named.webhook, &url).await;
            confirm(&place, known.webhook, (fields, &asked), Some(test))
        }
        _ if asked.get("url").is_some() && !fields.has("confirmed", "yes") => {
            match refusal(&console, &place, &fields, &known.described).await? {
                Some(error) => known.refuse(&place, fields, error),
                None => confirm(&place, known.webhook, (fields, &asked), None),
            }
        }
        _ => match save(&console, &place, &named.webhook, asked).await {
            Ok(()) => Ok(back_to(format!("{}/webhooks/{}?done=saved", place.base, named.webhook))),
            Err(error) => known.refuse(&place, fields, error),
        },
    }
}

/// The refusal of the new URL, before the confirmation.
async fn refusal(
    console: &Console,
    place: &Place,
    fields: &Fields,
    described: &[DescribedType],
) -> Result<Option<ApiError>, ApiError> {
    let checked = match form::check(console, place, fields, described).await {
        Ok(checked) => checked,
        Err(error) => return Ok(Some(error)),
    };
    let problem = checked.url.and_then(|url| url.problem);
    Ok(problem.map(|problem| ApiError::new(ErrorCode::InvalidUrl, problem).at("url")))
}

async fn save(console: &Console, place: &Place, webhook: &str, asked: Value) -> Result<(), ApiError> {
    if asked.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(());
    }
    let body = JsonBody(from_value(&asked)?);
    let (api, authorized, path) = (State(console.api.clone()), place.authorized(), Path(webhook.to_owned()));
    let work = async move { webhooks::change(api, authorized, path, body).await.map(|answer| answer.data) };
    place.change(console, Right::Endpoints, ("change_webhook", asked), work).await.map(|_| ())
}

/// Shows the change before it is made, with the result of a test.
fn confirm(
    place: &Place,
    webhook: Webhook,
    (fields, asked): (Fields, &Value),
    test: Option<Result<fanfare_api::routes::webhooks::test_sends::TestResult, ApiError>>,
) -> Result<Response, Fault> {
    let differences = settings::differences(asked, &webhook);
    let (test, refusal) = match test {
        Some(Ok(result)) => (Some(TestView::new(result)), None),
        Some(Err(error)) => (None, Some(error.message)),
        None => (None, None),
    };
    let title = title(webhook.name.as_deref(), &webhook.url);
    let frame = place.frame("Confirm the change");
    page(&place.visitor, &Confirmation { frame, webhook, title, fields, differences, test, refusal })
}
