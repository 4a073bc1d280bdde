//! The authorized application, its dialect and its rules.

use std::sync::Arc;

use fanfare_domain::{dialect::Dialect, event::catalogue::Catalogue};
use fanfare_store::ApplicationRow;

use crate::{
    http::{authentication::AuthorizedApplication, error::ApiError},
    state::ApiState,
};

/// The rules of an application for endpoints and test events.
pub(crate) struct ApplicationRules {
    pub(crate) dialect: Arc<Dialect>,
    /// The dialect's types and the application's own types.
    pub(crate) catalogue: Catalogue,
    /// True if undescribed event types are refused.
    pub(crate) is_strict: bool,
}

impl ApiState {
    /// The dialect of the authorized application.
    pub(crate) async fn dialect_of(&self, authorized: &AuthorizedApplication) -> Result<Arc<Dialect>, ApiError> {
        self.dialect(&self.application_of(authorized).await?)
    }

    /// The authorized application.
    pub(crate) async fn application_of(&self, authorized: &AuthorizedApplication) -> Result<ApplicationRow, ApiError> {
        let missing = || ApiError::not_found("application", "no application has this id");
        self.store.application(authorized.application).await?.ok_or_else(missing)
    }

    /// The dialect of an application.
    pub(crate) fn dialect(&self, row: &ApplicationRow) -> Result<Arc<Dialect>, ApiError> {
        self.dialects.get(&row.dialect).cloned().ok_or_else(|| {
            tracing::error!(
                application = %row.id,
                dialect = row.dialect,
                "the dialect of an application is missing in this process: check FANFARE_DIALECTS"
            );
            ApiError::unreadable_application()
        })
    }

    /// The rules of the authorized application.
    pub(crate) async fn rules_of(&self, authorized: &AuthorizedApplication) -> Result<ApplicationRules, ApiError> {
        let row = self.application_of(authorized).await?;
        let dialect = self.dialect(&row)?;
        let own = self.store.event_types(authorized.application).await?;
        let catalogue = Catalogue::new(dialect.catalogue.types().iter().cloned().chain(own));
        Ok(ApplicationRules { dialect, catalogue, is_strict: row.is_strict })
    }
}
