//! The place of a page: the visitor, and the application of the path.

use std::collections::HashMap;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use fanfare_api::{
    http::{authentication::AuthorizedApplication, error::ApiError, parameters::Query},
    routes::{
        event_types::{self, DescribedType},
        webhooks::{self, Webhook},
    },
};
use fanfare_domain::{access::session::Right, ids::ApplicationId};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Console,
    frame::{Frame, Shown, entries, fault::Fault},
    session::visitor::Visitor,
};

/// The visitor of a page of an application.
pub(crate) struct Place {
    pub(crate) visitor: Visitor,
    pub(crate) application: ApplicationId,
    /// Display name of the application.
    pub(crate) name: String,
    /// Path before the pages of the application.
    pub(crate) base: String,
}

impl Place {
    /// The API's proof of access.
    pub(crate) fn authorized(&self) -> AuthorizedApplication {
        let may_see_payloads = self.visitor.may(Right::Payloads);
        AuthorizedApplication { application: self.application, may_see_payloads }
    }

    /// All described event types.
    pub(crate) async fn event_types(&self, console: &Console) -> Result<Vec<DescribedType>, ApiError> {
        event_types::all(&console.api, &self.authorized()).await
    }

    /// The newest webhooks, at most 100.
    pub(crate) async fn webhooks(&self, console: &Console) -> Result<Vec<Webhook>, ApiError> {
        let filter = webhooks::Filter { limit: Some(100), ..webhooks::Filter::default() };
        Ok(webhooks::list(State(console.api.clone()), self.authorized(), Query(filter)).await?.data)
    }

    /// The frame of a page.
    pub(crate) fn frame(&self, title: impl Into<String>) -> Frame {
        let path = self.visitor.address.split('?').next().unwrap_or_default();
        let mut frame = Frame::new(&self.visitor, title);
        frame.entries = entries(&self.visitor, &self.base, true, path);
        frame.base = self.base.clone();
        frame.application = Some(Shown { id: self.application.to_string(), name: self.name.clone() });
        frame
    }

    /// Makes a change of the application. See [`Visitor::change`].
    pub(crate) async fn change<T: Serialize + Send + 'static>(
        &self,
        console: &Console,
        right: Right,
        operation: (&'static str, Value),
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.visitor.change(console, right, operation, Some(self.application), work).await
    }
}

impl FromRequestParts<Console> for Place {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Fault> {
        let missing = || ApiError::not_found("application", "no application has this id, or the session has another");
        let visitor = Visitor::from_request_parts(parts, console).await.map_err(|_| missing())?;
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, console).await;
        let named = path.ok().and_then(|Path(parameters)| parameters.get("app").cloned());
        let application = named.ok_or_else(missing)?.parse().map_err(|_| missing())?;
        visitor.application(application)?;
        let row = console.api.store.application(application).await.map_err(ApiError::from)?.ok_or_else(missing)?;
        let base = format!("{}/{application}", visitor.session.face.root());
        Ok(Self { visitor, application, name: row.name, base })
    }
}
