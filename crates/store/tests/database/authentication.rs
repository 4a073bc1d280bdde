//! Endpoints that authenticate at receivers.

use fanfare_domain::endpoint::authentication::{Authentication, ClientAuthentication, OAuth2};
use fanfare_store::EndpointSettings;

use super::{APPLICATION, Database, endpoint};

pub(crate) fn oauth2(client_secret: &str) -> EndpointSettings {
    let oauth2 = OAuth2 {
        token_url: "https://login.example.com/token".parse().expect("URL"),
        client_id: "shop".to_owned(),
        client_secret: client_secret.to_owned().into(),
        scope: None,
        audience: None,
        client_authentication: ClientAuthentication::Basic,
    };
    EndpointSettings { authentication: Some(Some(Authentication::OAuth2(oauth2))), ..EndpointSettings::default() }
}

/// Gives endpoint 1 the authentication, and returns its version.
pub(crate) async fn authenticate(database: &Database, settings: &EndpointSettings) -> i64 {
    let changed = database.store.change_endpoint(APPLICATION, endpoint(1), settings).await;
    changed.expect("a change").expect("the endpoint").authentication_version
}
