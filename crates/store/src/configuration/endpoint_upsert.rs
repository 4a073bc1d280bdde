//! Upsert of endpoints, by id or by URL.

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    endpoint::secret::SigningSecret,
    ids::{ApplicationId, EndpointId, SecretId},
};

use crate::{
    EndpointRow, EndpointSettings, NewEndpoint, Store, StoreError,
    configuration::{applications::LOCK_OWNER, endpoints::count_endpoints},
    connection::store::row_count,
};

/// Upsert of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointUpsert {
    /// Id of the endpoint; `None` to find the endpoint by its URL.
    pub id: Option<EndpointId>,
    /// Changes of the endpoint.
    pub settings: EndpointSettings,
    /// New secret, which replaces all secrets of the endpoint.
    pub secret: Option<(SecretId, SigningSecret)>,
    /// Endpoint to create if no endpoint has the URL; `None` if the request lacks a necessary value.
    pub new: Option<NewEndpoint>,
}

/// Result of the upsert of an endpoint.
#[derive(Debug, Clone)]
pub enum Upserted {
    /// The endpoint is new, and has this secret.
    Created(Box<EndpointRow>, SigningSecret),
    /// The endpoint was changed.
    Changed(Box<EndpointRow>),
    /// No endpoint has this id.
    NoSuchId,
    /// No endpoint has this URL, and the request lacks a value to create an endpoint.
    NothingToCreate,
    /// Several endpoints have this URL.
    Ambiguous,
    /// The application already has the maximum of endpoints.
    TooMany,
}

impl Store {
    /// Upserts endpoints, all or none. The first endpoint that fails is the last answer. Creates no endpoint beyond
    /// `most` of the application.
    pub async fn put_endpoints(
        &self,
        application: ApplicationId,
        endpoints: &[EndpointUpsert],
        most: usize,
    ) -> Result<Vec<Upserted>, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        // Two concurrent upserts of the same URL must not both create the endpoint.
        transaction.execute(LOCK_OWNER, &[&application.0]).await?;
        let mut answers = Vec::new();
        for endpoint in endpoints {
            let put = self.put_endpoint(&transaction, application, endpoint, row_count(most)).await?;
            let is_done = matches!(put, Upserted::Created(..) | Upserted::Changed(_));
            answers.push(put);
            if !is_done {
                return Ok(answers);
            }
        }
        transaction.commit().await?;
        Ok(answers)
    }

    async fn put_endpoint(
        &self,
        client: &impl GenericClient,
        application: ApplicationId,
        put: &EndpointUpsert,
        most: i64,
    ) -> Result<Upserted, StoreError> {
        let id = match put.id {
            Some(id) => id,
            None => {
                let statement =
                    "SELECT id FROM endpoints WHERE application_id = $1 AND url = $2 AND deleted_at IS NULL";
                let found = client.query(statement, &[&application.0, &put.settings.url]).await?;
                match (found.as_slice(), &put.new) {
                    ([], None) => return Ok(Upserted::NothingToCreate),
                    ([], Some(_)) if count_endpoints(client, application).await? >= most => {
                        return Ok(Upserted::TooMany);
                    }
                    ([], Some(new)) => {
                        let row = self.create_endpoint_in(client, new).await?;
                        return Ok(Upserted::Created(Box::new(row), new.secret.clone()));
                    }
                    ([row], _) => EndpointId(row.get(0)),
                    _ => return Ok(Upserted::Ambiguous),
                }
            }
        };
        let Some(row) = self.change_endpoint_in(client, application, id, &put.settings).await? else {
            return Ok(Upserted::NoSuchId);
        };
        if let Some((secret_id, secret)) = &put.secret {
            client.execute("DELETE FROM endpoint_secrets WHERE endpoint_id = $1", &[&id.0]).await?;
            self.add_secret(client, id, *secret_id, secret).await?;
        }
        Ok(Upserted::Changed(Box::new(row)))
    }
}
