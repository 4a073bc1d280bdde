//! API keys, as they are managed. Only the digest of a token is ever stored.

use fanfare_domain::{
    access::{Role, Token},
    ids::ApplicationId,
};

use crate::{Store, StoreError};

impl Store {
    /// Keeps what a token is recognised by. An admin key has no application, every other key one.
    ///
    /// # Errors
    /// [`StoreError::Data`] when role and application do not fit, or there is no such application.
    pub async fn create_key(
        &self,
        token: &Token,
        role: Role,
        application: Option<ApplicationId>,
    ) -> Result<(), StoreError> {
        let statement = "INSERT INTO api_keys (id, application_id, role, digest) VALUES ($1, $2, $3, $4)";
        let digest = token.digest();
        let application = application.map(|id| id.0);
        self.connection()
            .await?
            .execute(statement, &[&token.key.0, &application, &role.as_str(), &digest.as_slice()])
            .await?;
        Ok(())
    }
}
