//! Changes of a webhook: the form, and the confirmation of another URL with a test.

use askama::Template;
use axum::{body::Bytes, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::{ApiError, ErrorCode},
    },
    routes::{
        event_types::DescribedType,
        webhooks::{self, Webhook, settings::parsed_filter, test_sends::TestResult},
    },
};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    application::webhooks::{
        form::{
            self, Checked, WebhookForm,
            settings::{self, Difference},
            template,
        },
        subject::Subject,
        test_send::{result::TestView, try_out},
    },
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        respond::{back_to, page_with},
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
    is_new_url: bool,
    test: Option<TestView>,
    /// Error of the test.
    refusal: Option<String>,
}

/// A webhook, and the types to choose from.
struct Known {
    subject: Subject,
    described: Vec<DescribedType>,
}

impl Known {
    async fn new(subject: Subject) -> Result<Self, ApiError> {
        subject.place.visitor.require(Right::Endpoints)?;
        let described = subject.place.event_types(&subject.console).await?;
        Ok(Self { subject, described })
    }

    fn form(&self, fields: Fields) -> WebhookForm {
        WebhookForm::new(&self.described, fields).of_known(&self.subject.webhook)
    }

    fn answer(self, form: WebhookForm) -> Result<Response, Fault> {
        let (frame, title) = (self.subject.place.frame("Edit webhook"), self.subject.title());
        let shown = Edit { frame, title, webhook: self.subject.webhook, form };
        page_with(shown.form.fields.status(), &self.subject.place.visitor, &shown)
    }

    fn refuse(self, fields: Fields, error: ApiError) -> Result<Response, Fault> {
        let form = self.form(fields.refused(error));
        self.answer(form)
    }

    async fn check(&self, fields: &Fields) -> Result<Checked, ApiError> {
        form::check(&self.subject.console, &self.subject.place, fields, &self.described).await
    }
}

/// Shows the form with the present settings.
pub(crate) async fn show(subject: Subject) -> Result<Response, Fault> {
    let known = Known::new(subject).await?;
    let form = known.form(settings::fields_of(&known.subject.webhook, &known.described));
    known.answer(form)
}

/// Changes the webhook, after a confirmation of the differences.
pub(crate) async fn change(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let known = Known::new(subject).await?;
    match form::help(&known.subject.console, &known.subject.place, &fields, &known.described).await {
        Some(Ok(form)) => {
            let form = form.of_known(&known.subject.webhook);
            return known.answer(form);
        }
        Some(Err(error)) => return known.refuse(fields, error),
        None => {}
    }
    let asked = match settings::change(&fields, &known.subject.webhook, &known.described) {
        Ok(asked) => asked,
        Err(error) => return known.refuse(fields, error),
    };
    match fields.value("intent") {
        "edit" => {
            let form = known.form(fields);
            known.answer(form)
        }
        "test" => {
            let test = try_out(&known.subject, &Fields::default(), fields.given("url")).await;
            confirm(known.subject, (fields, &asked), Some(test))
        }
        _ if is_empty(&asked) => Ok(back_to(known.subject.path(""))),
        _ if !fields.has("confirmed", "yes") => match refusal(&known, &fields).await? {
            Some(error) => known.refuse(fields, error),
            None => confirm(known.subject, (fields, &asked), None),
        },
        _ if fields.value("updated_at") != known.subject.webhook.updated_at.to_string() => {
            let message = "was changed meanwhile: look at the differences again, and save";
            let error = ApiError::invalid("webhook", message);
            confirm(known.subject, (fields.refused(error), &asked), None)
        }
        _ => match save(&known.subject, asked).await {
            Ok(()) => Ok(back_to(known.subject.path("?done=saved"))),
            Err(error) => known.refuse(fields, error),
        },
    }
}

/// True if the form changes nothing.
fn is_empty(asked: &Value) -> bool {
    asked.as_object().is_some_and(serde_json::Map::is_empty)
}

/// The refusal of the new settings, before the confirmation.
async fn refusal(known: &Known, fields: &Fields) -> Result<Option<ApiError>, ApiError> {
    let checked = match known.check(fields).await {
        Ok(checked) => checked,
        Err(error) => return Ok(Some(error)),
    };
    let problem = checked.url.and_then(|url| url.problem);
    let refused = problem.map(|problem| ApiError::new(ErrorCode::InvalidUrl, problem).at("url"));
    let of_filter = || fields.given("filter").and_then(|filter| parsed_filter(filter).err());
    Ok(refused.or_else(of_filter).or_else(|| template::value(fields).err()))
}

async fn save(subject: &Subject, asked: Value) -> Result<(), ApiError> {
    let body = JsonBody(from_value(&asked)?);
    let (api, authorized, path) = subject.arguments();
    let work = async move { webhooks::change(api, authorized, path, body).await.map(|answer| answer.data) };
    subject.change(Right::Endpoints, ("change_webhook", asked), work).await.map(|_| ())
}

/// Shows the change before it is made, with the result of a test.
fn confirm(
    subject: Subject,
    (fields, asked): (Fields, &Value),
    test: Option<Result<TestResult, ApiError>>,
) -> Result<Response, Fault> {
    let (test, refusal) = match test {
        Some(Ok(result)) => (Some(TestView::new(result)), None),
        Some(Err(error)) => (None, Some(error.message)),
        None => (None, None),
    };
    let shown = Confirmation {
        frame: subject.place.frame("Confirm the change"),
        title: subject.title(),
        differences: settings::differences(asked, &subject.webhook),
        is_new_url: asked.get("url").is_some(),
        webhook: subject.webhook,
        fields,
        test,
        refusal,
    };
    page_with(shown.fields.status(), &subject.place.visitor, &shown)
}
