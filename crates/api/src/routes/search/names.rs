//! Names of applications and webhooks for pages that show ids. The API's lists show ids only.

use std::collections::HashMap;

use fanfare_domain::ids::{ApplicationId, EndpointId};

use crate::{http::error::ApiError, state::ApiState};

/// Names by the text of the id, such as `app_…` or `wh_…`. A webhook without a name has its URL.
pub type Names = HashMap<String, String>;

/// Finds the names of the applications and webhooks among `ids`; with `application` only its own. Unknown ids, and ids
/// of other things, have no name.
///
/// # Errors
/// If the database does not answer.
pub async fn names(
    api: &ApiState,
    application: Option<ApplicationId>,
    ids: impl IntoIterator<Item = String>,
) -> Result<Names, ApiError> {
    let (mut applications, mut endpoints) = (Vec::<ApplicationId>::new(), Vec::<EndpointId>::new());
    for id in ids {
        applications.extend(id.parse::<ApplicationId>().ok());
        endpoints.extend(id.parse::<EndpointId>().ok());
    }
    if applications.is_empty() && endpoints.is_empty() {
        return Ok(Names::new());
    }
    let found = api.store.names(application, &applications, &endpoints).await?;
    let of_applications = found.applications.into_iter().map(|(id, name)| (id.to_string(), name));
    let of_endpoints = found.endpoints.into_iter().map(|(id, name)| (id.to_string(), name));
    Ok(of_applications.chain(of_endpoints).collect())
}
