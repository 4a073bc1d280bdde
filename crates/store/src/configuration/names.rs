//! Names of applications and endpoints, many at once.

use fanfare_domain::ids::{ApplicationId, EndpointId};
use uuid::Uuid;

use crate::{Store, StoreError};

/// Names of applications and endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Names of applications.
    pub applications: Vec<(ApplicationId, String)>,
    /// Names of endpoints; the URL for an endpoint without a name.
    pub endpoints: Vec<(EndpointId, String)>,
}

impl Store {
    /// Finds the names of applications and endpoints, deleted or not; with `application` only its own.
    pub async fn names(
        &self,
        application: Option<ApplicationId>,
        applications: &[ApplicationId],
        endpoints: &[EndpointId],
    ) -> Result<Names, StoreError> {
        let statement = "SELECT id, name, true AS is_application FROM applications
                         WHERE id = ANY($1) AND ($3::uuid IS NULL OR id = $3)
                         UNION ALL
                         SELECT id, coalesce(name, url), false FROM endpoints
                         WHERE id = ANY($2) AND ($3::uuid IS NULL OR application_id = $3)";
        let applications: Vec<Uuid> = applications.iter().map(|id| id.0).collect();
        let endpoints: Vec<Uuid> = endpoints.iter().map(|id| id.0).collect();
        let only = application.map(|id| id.0);
        let rows = self.connection().await?.query(statement, &[&applications, &endpoints, &only]).await?;
        let mut names = Names::default();
        for row in &rows {
            let (id, name): (Uuid, String) = (row.get("id"), row.get("name"));
            match row.get("is_application") {
                true => names.applications.push((ApplicationId(id), name)),
                false => names.endpoints.push((EndpointId(id), name)),
            }
        }
        Ok(names)
    }
}
