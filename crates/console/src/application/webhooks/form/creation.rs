//! A new webhook: the form, and the page with the secret.

use askama::Template;
use axum::{
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fanfare_api::{
    http::{
        body::from_value,
        error::ApiError,
        parameters::{Path, id},
    },
    routes::{
        event_types::DescribedType,
        webhooks::{self, Webhook},
    },
};
use fanfare_domain::{access::session::Right, ids::EndpointId};

use crate::{
    Console,
    application::webhooks::{
        form::{self, WebhookForm, settings},
        signature::samples::{self, Samples},
        title,
    },
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        place::Place,
        respond::{back_to, page_with},
    },
};

#[derive(Template)]
#[template(path = "application/webhooks/form/creation.html")]
struct Creation {
    frame: Frame,
    form: WebhookForm,
}

#[derive(Template)]
#[template(path = "application/webhooks/form/created.html")]
struct Created {
    frame: Frame,
    webhook: Webhook,
    title: String,
    secret: String,
    samples: Samples,
}

/// Shows the form of a new webhook.
pub(crate) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    place.visitor.require(Right::Endpoints)?;
    let described = place.event_types(&console).await?;
    // The id makes a form that is sent twice one webhook.
    let id = EndpointId::new(console.api.store.now(), rand::random());
    let fields = Fields::default().with("id", id.to_string()).with("which", "these");
    answer(&place, WebhookForm::new(&described, fields))
}

/// Creates the webhook, or only helps with the fields.
pub(crate) async fn create(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    place.visitor.require(Right::Endpoints)?;
    let fields = Fields::of_body(&body);
    let described = place.event_types(&console).await?;
    match form::help(&console, &place, &fields, &described).await {
        Some(Ok(form)) => return answer(&place, form),
        Some(Err(error)) => return refuse(&place, &described, fields, error),
        None => {}
    }
    let asked: EndpointId = id("id", fields.value("id"))?;
    if let Some(known) = known(&console, &place, asked).await? {
        return Ok(back_to(format!("{}/webhooks/{known}?done=created-before", place.base)));
    }
    match save(&console, &place, asked, &fields, &described).await {
        Ok(webhook) => Ok(created(&console, &place, webhook).await?),
        Err(error) => refuse(&place, &described, fields, error),
    }
}

/// The webhook of an earlier request with the same form.
async fn known(console: &Console, place: &Place, id: EndpointId) -> Result<Option<EndpointId>, ApiError> {
    let path = Path(id.to_string());
    match webhooks::show(State(console.api.clone()), place.authorized(), path).await {
        Ok(known) => Ok(Some(known.data.id)),
        Err(error) if error.status() == StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

async fn save(
    console: &Console,
    place: &Place,
    id: EndpointId,
    fields: &Fields,
    described: &[DescribedType],
) -> Result<Webhook, ApiError> {
    let asked = settings::creation(fields, described)?;
    let new = from_value(&asked)?;
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work = async move { webhooks::create_with_id(&api, &authorized, id, new).await };
    place.change(console, Right::Endpoints, ("create_webhook", asked), work).await
}

/// The page with the secret: the answer to the request itself, as no other address may show the secret.
async fn created(console: &Console, place: &Place, mut webhook: Webhook) -> Result<Response, Fault> {
    let Some(secret) = webhook.secret.take() else {
        return Ok(back_to(format!("{}/webhooks/{}?done=created-before", place.base, webhook.id)));
    };
    let samples = samples::of_application(console, place).await?;
    let title = title(webhook.name.as_deref(), &webhook.url);
    let shown = Created { frame: place.frame("Webhook created"), title, secret, samples, webhook };
    Ok(page_with(StatusCode::CREATED, &place.visitor, &shown)?.into_response())
}

fn refuse(place: &Place, described: &[DescribedType], fields: Fields, error: ApiError) -> Result<Response, Fault> {
    answer(place, WebhookForm::new(described, fields.refused(error)))
}

fn answer(place: &Place, form: WebhookForm) -> Result<Response, Fault> {
    page_with(form.fields.status(), &place.visitor, &Creation { frame: place.frame("Add endpoint"), form })
}
