//! Dials connections with the current credentials.

use std::{pin::Pin, str::FromStr, time::Duration};

use deadpool_postgres::Connect;
use fanfare_credentials::Credentials;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{CancelToken, Client, Config, Connection, Error, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{StoreError, connection::tls::without_tls};

/// Longest set-up of a connection. A pooler without a free session lets the first statement wait.
pub(crate) const SET_UP_LIMIT: Duration = Duration::from_secs(5);

/// Driver of a connection: moves the bytes.
pub(crate) type Dialled = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Dials the database. Reads files of credentials again at each connection.
#[derive(Clone)]
pub(crate) struct Dialler {
    tls: MakeRustlsConnect,
    credentials: Credentials,
}

impl Dialler {
    pub(crate) fn new(tls: MakeRustlsConnect, credentials: Credentials) -> Self {
        Self { tls, credentials }
    }

    /// Dials a connection. The client gets answers only while the caller polls the driver.
    pub(crate) async fn dial(&self, config: &Config) -> Result<(Client, Dialled), Error> {
        with_login(config, &self.credentials).connect(self.tls.clone()).await
    }

    /// Cancels the running statement of a connection.
    pub(crate) async fn cancel(&self, token: &CancelToken) -> Result<(), StoreError> {
        let cancelled = timeout(SET_UP_LIMIT, token.cancel_query(self.tls.clone())).await;
        Ok(cancelled.map_err(|late| StoreError::Unavailable(late.into()))??)
    }
}

impl Connect for Dialler {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, connection) = self.dial(&config).await?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(%error, "a connection to the database ended");
                }
            });
            Ok((client, driver))
        })
    }
}

/// The configuration with the user and password of the next login.
fn with_login(config: &Config, credentials: &Credentials) -> Config {
    let mut config = config.clone();
    if credentials.url.is_in_file() {
        match Config::from_str(&without_tls(&credentials.url.text())) {
            Ok(read) => {
                if let Some(user) = read.get_user() {
                    config.user(user);
                }
                if let Some(password) = read.get_password() {
                    config.password(password);
                }
            }
            Err(_) => tracing::warn!("the file of DATABASE_URL_FILE is no URL any more; keeping user and password"),
        }
    }
    let (username, password) = credentials.apart();
    if let Some(user) = username {
        config.user(user);
    }
    if let Some(password) = password {
        config.password(password);
    }
    config
}

#[cfg(test)]
mod tests {
    use fanfare_credentials::Secret;

    use super::*;

    fn login(credentials: &Credentials) -> (Option<String>, Option<String>) {
        let config = with_login(&Config::from_str("postgres://u:p@h/d").expect("a URL"), credentials);
        let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        (config.get_user().map(str::to_owned), password)
    }

    fn pair(user: &str, password: &str) -> (Option<String>, Option<String>) {
        (Some(user.to_owned()), Some(password.to_owned()))
    }

    #[test]
    fn settings_beat_the_login_of_the_url() {
        let mut credentials = Credentials::of_url("postgres://u:p@h/d");
        assert_eq!(login(&credentials), pair("u", "p"));
        credentials.password = Some(Secret::new("p@ss/w"));
        assert_eq!(login(&credentials), pair("u", "p@ss/w"));
        credentials.username = Some(Secret::new("us er"));
        assert_eq!(login(&credentials), pair("us er", "p@ss/w"));
    }

    #[test]
    fn the_file_of_the_url_is_read_at_each_login() {
        let path = std::env::temp_dir().join(format!("fanfare-database-url-{}", std::process::id()));
        std::fs::write(&path, "postgres://u:first@h/d?sslmode=verify-full\n").expect("a file");
        let credentials = Credentials { url: Secret::in_file(&path).expect("a file"), username: None, password: None };
        assert_eq!(login(&credentials), pair("u", "first"));
        std::fs::write(&path, "host=h user=v password=second").expect("a file");
        assert_eq!(login(&credentials), pair("v", "second"));
        std::fs::write(&path, "postgres:///d?user=w&password=third&sslmode=require").expect("a file");
        assert_eq!(login(&credentials), pair("w", "third"));
        std::fs::write(&path, "no URL").expect("a file");
        assert_eq!(login(&credentials), pair("u", "p"));
        std::fs::remove_file(&path).expect("a file");
    }
}
