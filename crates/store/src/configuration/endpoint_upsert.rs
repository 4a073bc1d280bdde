//! Endpoints that are created or changed, whichever it takes.

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    ids::{ApplicationId, EndpointId, SecretId},
    secret::SigningSecret,
};

use crate::{
    EndpointRow, EndpointSettings, NewEndpoint, Store, StoreError,
    configuration::{applications::LOCK_OWNER, endpoints::count_endpoints},
    connection::store::row_count,
};

/// One endpoint to be created or changed.
#[derive(Debug, Clone)]
pub struct PutEndpoint {
    /// Which one; none for the one with the same URL.
    pub id: Option<EndpointId>,
    /// What of it is to change.
    pub settings: EndpointSettings,
    /// Another secret, in place of all that it has.
    pub secret: Option<(SecretId, SigningSecret)>,
    /// What is to be created where there is none with the URL; none where something is missing for that.
    pub new: Option<NewEndpoint>,
}

/// What came of putting an endpoint.
#[derive(Debug, Clone)]
pub enum Put {
    /// It is new, and has this secret.
    Created(Box<EndpointRow>, SigningSecret),
    /// It has been changed.
    Changed(Box<EndpointRow>),
    /// There is none with this id.
    NoSuchId,
    /// There is none with this URL, and something is missing to create it.
    NothingToCreate,
    /// There are several with this URL.
    Ambiguous,
    /// The application has as many as it may have.
    TooMany,
}

impl Store {
    /// Creates or changes endpoints, all of them or none: the first that cannot be put is the last of the
    /// answers. None is created beyond `most` of the application's.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn put_endpoints(
        &self,
        application: ApplicationId,
        endpoints: &[PutEndpoint],
        most: usize,
    ) -> Result<Vec<Put>, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        // Two who put the same URL at once must not both create it.
        transaction.execute(LOCK_OWNER, &[&application.0]).await?;
        let mut answers = Vec::new();
        for one in endpoints {
            let put = self.put_endpoint(&transaction, application, one, row_count(most)).await?;
            let is_done = matches!(put, Put::Created(..) | Put::Changed(_));
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
        put: &PutEndpoint,
        most: i64,
    ) -> Result<Put, StoreError> {
        let id = match put.id {
            Some(id) => id,
            None => {
                let statement =
                    "SELECT id FROM endpoints WHERE application_id = $1 AND url = $2 AND deleted_at IS NULL";
                let found = client.query(statement, &[&application.0, &put.settings.url]).await?;
                match (found.as_slice(), &put.new) {
                    ([], None) => return Ok(Put::NothingToCreate),
                    ([], Some(_)) if count_endpoints(client, application).await? >= most => return Ok(Put::TooMany),
                    ([], Some(new)) => {
                        let row = self.create_endpoint_in(client, new).await?;
                        return Ok(Put::Created(Box::new(row), new.secret.clone()));
                    }
                    ([one], _) => EndpointId(one.get(0)),
                    _ => return Ok(Put::Ambiguous),
                }
            }
        };
        let Some(row) = self.change_endpoint_in(client, application, id, &put.settings).await? else {
            return Ok(Put::NoSuchId);
        };
        if let Some((secret_id, secret)) = &put.secret {
            client.execute("DELETE FROM endpoint_secrets WHERE endpoint_id = $1", &[&id.0]).await?;
            self.add_secret(client, id, *secret_id, secret).await?;
        }
        Ok(Put::Changed(Box::new(row)))
    }
}
