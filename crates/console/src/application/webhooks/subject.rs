//! The webhook of a page: the extractor of all pages below `…/webhooks/{webhook}`.

use axum::{
    extract::{FromRequestParts, State},
    http::request::Parts,
};
use fanfare_api::{
    ApiState,
    http::{authentication::AuthorizedApplication, error::ApiError, parameters::Path},
    routes::webhooks::{self, Webhook},
};
use fanfare_domain::access::session::Right;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Console,
    application::webhooks::title,
    frame::{fault::Fault, form::Fields, marks, place::Place},
};

/// The webhook of a page, with its place.
pub(crate) struct Subject {
    pub(crate) console: Console,
    pub(crate) place: Place,
    pub(crate) webhook: Webhook,
}

impl Subject {
    /// The arguments of the API's handlers for the webhook.
    pub(crate) fn arguments(&self) -> (State<ApiState>, AuthorizedApplication, Path<String>) {
        (State(self.console.api.clone()), self.place.authorized(), Path(self.webhook.id.to_string()))
    }

    /// Makes a change of the webhook. See [`Place::change`].
    pub(crate) async fn change<T: Serialize + Send + 'static>(
        &self,
        right: Right,
        operation: (&'static str, Value),
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.place.change(&self.console, right, operation, work).await
    }

    /// The name, else the host.
    pub(crate) fn title(&self) -> String {
        title(self.webhook.name.as_deref(), &self.webhook.url)
    }

    /// Host of the URL, which confirms dangerous changes.
    pub(crate) fn host(&self) -> String {
        marks::host(&self.webhook.url)
    }

    /// Path of the webhook's page, followed by `rest`.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("{}/webhooks/{}{rest}", self.place.base, self.webhook.id)
    }

    /// Path of the webhook in the API, followed by `rest`.
    pub(crate) fn api_path(&self, rest: &str) -> String {
        format!("/webhooks/{}{rest}", self.webhook.id)
    }

    /// Checks that the visitor has typed the host's name. `purpose` ends the sentence of the error.
    pub(crate) fn check_host(&self, fields: &Fields, purpose: &str) -> Result<(), ApiError> {
        let host = self.host();
        if fields.given("host") == Some(&host) {
            return Ok(());
        }
        Err(ApiError::invalid("host", format!("must be `{host}`: type the host's name to {purpose}")))
    }
}

impl FromRequestParts<Console> for Subject {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Fault> {
        let place = Place::from_request_parts(parts, console).await?;
        let Path(named) = Path::<Named>::from_request_parts(parts, console).await?;
        let found = webhooks::show(State(console.api.clone()), place.authorized(), Path(named.webhook)).await?;
        Ok(Self { console: console.clone(), place, webhook: found.data })
    }
}

/// The webhook in the path.
#[derive(Deserialize)]
struct Named {
    webhook: String,
}
