//! Sessions of the web pages, and the links that open them. Only the digest of a token is stored.

use std::time::Duration;

use fanfare_domain::{
    access::session::{CONSOLE_IDLE, CONSOLE_LIFETIME, Face, Right, Rights, Session, SessionToken, SignIn},
    ids::{ApplicationId, KeyId, SessionId},
    theme::Theme,
};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count};

/// A session to begin, or a link to a session.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The pages of the session.
    pub face: Face,
    /// Application of the session; `None` for all applications.
    pub application: Option<ApplicationId>,
    /// Rights of the session.
    pub rights: Rights,
    /// Key of the sign-in. The session ends with its key.
    pub key: Option<KeyId>,
    /// Session without a key that creates the link. The session ends with its creator.
    pub creator: Option<SessionId>,
    /// Name of the visitor.
    pub name: String,
    /// The proof of the visitor.
    pub sign_in: SignIn,
    /// Time from the sign-in to the end of the session.
    pub lifetime: Duration,
    /// Time from the last request to the end of the session.
    pub idle: Duration,
    /// Address to return to, of a portal.
    pub back: Option<String>,
    /// Look of a portal.
    pub theme: Option<Theme>,
}

impl NewSession {
    /// A session of the console, without a key.
    pub fn of_console(name: String, sign_in: SignIn, application: Option<ApplicationId>, rights: Rights) -> Self {
        Self {
            face: Face::Console,
            application,
            rights,
            key: None,
            creator: None,
            name,
            sign_in,
            lifetime: CONSOLE_LIFETIME,
            idle: CONSOLE_IDLE,
            back: None,
            theme: None,
        }
    }
}

const COLUMNS: &str =
    "s.id, s.face, s.application_id, s.rights, s.key_id, s.name, s.sign_in, s.opens_until, s.created_at, s.seen_at,
                       s.idle_seconds, s.created_at + s.lifetime_seconds * interval '1 second' AS ends_at, s.back, s.theme";

/// Condition of a session that has not ended.
fn lives() -> String {
    let own = |session: &str| {
        format!(
            "{session}.ended_at IS NULL
             AND {session}.created_at + {session}.lifetime_seconds * interval '1 second' > now()
             AND {session}.seen_at + {session}.idle_seconds * interval '1 second' > now()"
        )
    };
    format!(
        "{} AND NOT EXISTS (SELECT FROM api_keys k WHERE k.id = s.key_id
                            AND (k.revoked_at IS NOT NULL OR k.expires_at <= now()))
         AND (s.creator_id IS NULL OR EXISTS (SELECT FROM sessions c WHERE c.id = s.creator_id AND {}))",
        own("s"),
        own("c")
    )
}

impl Store {
    /// Begins a session. With `opens_within`, `token` is the token of a link, which opens the session once.
    pub async fn create_session(
        &self,
        token: &SessionToken,
        new: &NewSession,
        opens_within: Option<Duration>,
    ) -> Result<(), StoreError> {
        let statement = "INSERT INTO sessions (id, face, digest, application_id, rights, key_id, name, sign_in,
                                               opens_until, lifetime_seconds, idle_seconds, back, theme, creator_id)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::bigint * interval '1 second', $10, $11,
                                 $12, $13, $14)";
        let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
        let (application, key) = (new.application.map(|id| id.0), new.key.map(|id| id.0));
        // A theme has only texts and numbers, and prints always.
        let theme = new.theme.and_then(|theme| serde_json::to_string(&theme).ok());
        let (digest, opens) = (token.digest(), opens_within.map(|within| i64::from(seconds(within))));
        self.connection()
            .await?
            .execute(
                statement,
                &[
                    &token.session.0,
                    &new.face.as_str(),
                    &digest.as_slice(),
                    &application,
                    &new.rights.names(),
                    &key,
                    &new.name,
                    &new.sign_in.as_str(),
                    &opens,
                    &seconds(new.lifetime),
                    &seconds(new.idle),
                    &new.back,
                    &theme,
                    &new.creator.map(|id| id.0),
                ],
            )
            .await?;
        Ok(())
    }

    /// Opens the session of a link once: from then on `token` is the session's token. `None` if the link was opened, is
    /// too old, or was revoked.
    pub async fn open_session(&self, link: &SessionToken, token: &SessionToken) -> Result<Option<Session>, StoreError> {
        let statement = format!(
            "UPDATE sessions s SET digest = $3, opens_until = NULL, created_at = now(), seen_at = now()
             WHERE s.id = $1 AND s.digest = $2 AND s.opens_until > now() AND {} RETURNING {COLUMNS}",
            lives()
        );
        let (old, new) = (link.digest(), token.digest());
        let connection = self.connection().await?;
        let row = connection.query_opt(&statement, &[&link.session.0, &old.as_slice(), &new.as_slice()]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The session of a link that can still be opened.
    pub async fn linked_session(&self, link: &SessionToken) -> Result<Option<Session>, StoreError> {
        self.find_session(link, "s.opens_until > now()").await
    }

    /// The session of a token, unless the session has ended.
    pub async fn session(&self, token: &SessionToken) -> Result<Option<Session>, StoreError> {
        self.find_session(token, "s.opens_until IS NULL").await
    }

    async fn find_session(&self, token: &SessionToken, opened: &str) -> Result<Option<Session>, StoreError> {
        let statement =
            format!("SELECT {COLUMNS} FROM sessions s WHERE s.id = $1 AND s.digest = $2 AND {opened} AND {}", lives());
        let digest = token.digest();
        // Pages that wait for their statements hold up no sign-in, and no other page's look for its session.
        let connection = self.writer().await?;
        let row = connection.query_opt(&statement, &[&token.session.0, &digest.as_slice()]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Notes a request of a session: the idle time begins again.
    pub async fn touch_session(&self, id: SessionId) -> Result<(), StoreError> {
        let statement = "UPDATE sessions SET seen_at = now() WHERE id = $1 AND seen_at < now() - interval '30 s'";
        self.writer().await?.execute(statement, &[&id.0]).await?;
        Ok(())
    }

    /// Lists sessions and unopened links that have not ended, newest first: one page of sessions older than `before`,
    /// of `application` and `face` if given.
    pub async fn sessions(
        &self,
        application: Option<ApplicationId>,
        face: Option<Face>,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM sessions s
             WHERE ($1::uuid IS NULL OR s.application_id = $1) AND ($2::uuid IS NULL OR s.id < $2)
               AND ($3::text IS NULL OR s.face = $3) AND (s.opens_until IS NULL OR s.opens_until > now()) AND {}
             ORDER BY s.id DESC LIMIT $4",
            lives()
        );
        let (application, face, before) = (application.map(|id| id.0), face.map(Face::as_str), before.map(|id| id.0));
        let parameters: [&(dyn ToSql + Sync); 4] = [&application, &before, &face, &row_count(limit)];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        rows.iter().map(read).collect()
    }

    /// Ends a session or revokes a link, of `application` if given. False if there is none.
    pub async fn end_session(&self, id: SessionId, application: Option<ApplicationId>) -> Result<bool, StoreError> {
        let statement = "UPDATE sessions SET ended_at = coalesce(ended_at, now())
                         WHERE id = $1 AND ($2::uuid IS NULL OR application_id = $2)";
        let application = application.map(|id| id.0);
        Ok(self.connection().await?.execute(statement, &[&id.0, &application]).await? == 1)
    }

    /// Ends the session of a token.
    pub async fn end_session_of(&self, token: &SessionToken) -> Result<(), StoreError> {
        let statement = "UPDATE sessions SET ended_at = coalesce(ended_at, now()) WHERE id = $1 AND digest = $2";
        self.writer().await?.execute(statement, &[&token.session.0, &token.digest().as_slice()]).await?;
        Ok(())
    }

    /// Ends all sessions of a visitor: with the same kind of sign-in, name and key. A link proves no person, and the
    /// sender chooses the name: of a link, only the session itself ends. Returns the number of ended sessions.
    pub async fn end_sessions_of(&self, session: &Session) -> Result<u64, StoreError> {
        let statement = "UPDATE sessions SET ended_at = now()
                         WHERE ended_at IS NULL
                           AND (id = $1 OR $2 <> 'link' AND sign_in = $2 AND name = $3
                                           AND key_id IS NOT DISTINCT FROM $4)";
        let (sign_in, key) = (session.sign_in.as_str(), session.key.map(|id| id.0));
        let connection = self.connection().await?;
        Ok(connection.execute(statement, &[&session.id.0, &sign_in, &session.name, &key]).await?)
    }

    /// Deletes sessions that ended at least a day ago. Returns the number of deleted sessions.
    pub async fn drop_sessions(&self) -> Result<u64, StoreError> {
        let statement = "DELETE FROM sessions
                         WHERE least(ended_at, opens_until, created_at + lifetime_seconds * interval '1 second')
                               < now() - interval '1 day'";
        Ok(self.connection().await?.execute(statement, &[]).await?)
    }
}

fn read(row: &Row) -> Result<Session, StoreError> {
    let id = SessionId(row.get("id"));
    let face = Face::parse(row.get("face")).ok_or_else(|| StoreError::corrupt("sessions", format!("{id}: face")))?;
    let sign_in =
        SignIn::parse(row.get("sign_in")).ok_or_else(|| StoreError::corrupt("sessions", format!("{id}: sign_in")))?;
    let rights: Vec<&str> = row.get("rights");
    let theme = row.get::<_, Option<&str>>("theme").map(serde_json::from_str).transpose();
    Ok(Session {
        id,
        face,
        application: row.get::<_, Option<Uuid>>("application_id").map(ApplicationId),
        // A right of a later release is not granted.
        rights: rights.into_iter().filter_map(Right::parse).collect(),
        key: row.get::<_, Option<Uuid>>("key_id").map(KeyId),
        name: row.get("name"),
        sign_in,
        opens_until: row.get("opens_until"),
        created_at: row.get("created_at"),
        seen_at: row.get("seen_at"),
        idle: Duration::from_secs(u64::from(row.get::<_, i32>("idle_seconds").unsigned_abs())),
        ends_at: row.get("ends_at"),
        back: row.get("back"),
        theme: theme.map_err(|error| StoreError::corrupt("sessions", format!("{id}: theme: {error}")))?,
    })
}
