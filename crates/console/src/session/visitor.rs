//! The visitor of a page: session, rights, and the wanted form of the answer.

use std::net::IpAddr;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use fanfare_api::{
    Author,
    http::{
        authentication::{Administrator, AuthorizedApplication, Scope},
        error::{ApiError, ErrorCode},
    },
};
use fanfare_domain::{
    access::session::{Face, Right, Session},
    ids::ApplicationId,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    Console,
    session::{cookie::Preferences, home::Home},
};

/// Header of the script's request for the live part of a page.
pub(crate) const LIVE: &str = "x-fanfare-live";

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A whole page.
    Page,
    /// The page as plain text.
    Text,
    /// The page's content, unless the content has this digest.
    Live { known: String },
}

/// The visitor of a page. The guard puts the visitor into each request.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) session: Session,
    pub(crate) home: Home,
    /// The token that each form must carry.
    pub(crate) form_token: String,
    pub(crate) preferences: Preferences,
    pub(crate) wanted: Wanted,
    /// Path and query of the request.
    pub(crate) address: String,
    /// Address of the client.
    pub(crate) origin: Option<IpAddr>,
    /// The database's time.
    pub(crate) now: Timestamp,
    /// True if nobody on the way can read the session.
    pub(crate) is_private: bool,
    /// Address of the API.
    pub(crate) api: String,
    /// Origins whose pages may frame the portal, separated by spaces.
    pub(crate) parents: String,
}

impl Visitor {
    /// True if the session has the right.
    pub(crate) fn may(&self, right: Right) -> bool {
        self.session.rights.contain(right)
    }

    /// Refuses a session without the right.
    pub(crate) fn require(&self, right: Right) -> Result<(), ApiError> {
        if self.may(right) {
            return Ok(());
        }
        let message = match self.session.rights.are_look_only() {
            true => "this session may only look: sign in again without `look only` to change something",
            false => "this session lacks the right for the request: ask the sender of the link",
        };
        Err(ApiError::new(ErrorCode::Forbidden, message))
    }

    /// True for a session of the portal.
    pub(crate) fn is_of_portal(&self) -> bool {
        self.session.face == Face::Portal
    }

    /// True for a session of all applications.
    pub(crate) fn is_administrator(&self) -> bool {
        self.session.face == Face::Console && self.session.application.is_none()
    }

    /// The API's proof of an administrator.
    pub(crate) fn administrator(&self) -> Result<Administrator, ApiError> {
        if self.is_administrator() {
            return Ok(Administrator);
        }
        let message = "this page shows all applications: sign in with an admin key";
        Err(ApiError::new(ErrorCode::Forbidden, message))
    }

    /// The API's proof of access to an application. Another application than the session's is unknown.
    pub(crate) fn application(&self, application: ApplicationId) -> Result<AuthorizedApplication, ApiError> {
        match self.session.application {
            Some(own) if own != application => {
                Err(ApiError::not_found("application", "no application has this id, or the session has another"))
            }
            _ => Ok(AuthorizedApplication { application, may_see_payloads: self.may(Right::Payloads) }),
        }
    }

    /// The applications of the session, for the API's lists of one or all applications.
    pub(crate) fn scope(&self) -> Scope {
        Scope(self.session.application)
    }

    /// Makes a change with an entry in the audit log. `operation` is the API's name of the change, `asked` the body of
    /// the same request to the API. A missing right is an outcome, too. Afterwards the services' copy of the
    /// configuration is fresh.
    pub(crate) async fn change<T: Serialize + Send + 'static>(
        &self,
        console: &Console,
        right: Right,
        (operation, asked): (&'static str, Value),
        application: Option<ApplicationId>,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permitted = self.require(right);
        let work = async move {
            permitted?;
            work.await
        };
        let done = console.audit.around(self.author(application), operation, asked, work).await?;
        match application {
            Some(application) => console.api.directory.refresh([application]).await,
            None => console.api.directory.refresh_all().await,
        };
        Ok(done)
    }

    /// The author of a change for the audit log.
    pub(crate) fn author(&self, application: Option<ApplicationId>) -> Author {
        Author {
            application,
            key: self.session.key,
            visitor: self.session.name.clone(),
            origin: self.origin,
            path: self.address.split('?').next().unwrap_or_default().to_owned(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // Each route with a visitor is behind the guard.
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
