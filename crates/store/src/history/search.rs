//! Finds objects by an id, by the publisher's key, or by a text. Each look-up is by a key, or walks a bounded number of
//! rows.

use fanfare_domain::{
    access::api_key::Role,
    delivery::State,
    ids::{ApplicationId, AttemptId, DeliveryId, EndpointId, EventId, KeyId, ParkedId, ReplayId},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError};

/// Newest applications in which a search without an application looks for events and deliveries.
pub const MAX_APPLICATIONS: usize = 1_000;

/// Newest endpoints or applications in which a search looks for a text.
pub const MAX_WALKED: usize = 10_000;

/// Attempts of one millisecond that a search for an attempt compares.
pub const MAX_ATTEMPTS: usize = 10_000;

/// Hits of a kind.
const MAX_HITS: usize = 10;

/// An object found by a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hit {
    /// An event.
    Event {
        /// Id of the event.
        id: EventId,
        /// Application of the event.
        application: ApplicationId,
        /// Type of the event.
        event_type: String,
        /// Moment of acceptance.
        accepted_at: Timestamp,
    },
    /// A delivery.
    Delivery {
        /// Id of the delivery.
        id: DeliveryId,
        /// Application of the delivery.
        application: ApplicationId,
        /// URL of the endpoint.
        url: String,
        /// State of the delivery.
        state: State,
    },
    /// An attempt.
    Attempt {
        /// Id of the attempt.
        id: AttemptId,
        /// Application of the delivery.
        application: ApplicationId,
        /// Delivery of the attempt.
        delivery: DeliveryId,
        /// Number of the attempt.
        attempt: u32,
    },
    /// An endpoint.
    Endpoint {
        /// Id of the endpoint.
        id: EndpointId,
        /// Application of the endpoint.
        application: ApplicationId,
        /// Display name.
        name: Option<String>,
        /// URL of the endpoint.
        url: String,
        /// True if the endpoint was deleted.
        is_deleted: bool,
    },
    /// An application.
    Application {
        /// Id of the application.
        id: ApplicationId,
        /// Display name.
        name: String,
    },
    /// A replay.
    Replay {
        /// Id of the replay.
        id: ReplayId,
        /// Application of the replay.
        application: ApplicationId,
        /// State of the replay.
        state: String,
        /// Time of creation.
        created_at: Timestamp,
    },
    /// A parked message.
    Parked {
        /// Id of the parked message.
        id: ParkedId,
        /// Code of the fault.
        reason: String,
        /// Time of parking.
        parked_at: Timestamp,
    },
    /// An API key.
    Key {
        /// Id of the key.
        id: KeyId,
        /// Application of the key; `None` for an admin key.
        application: Option<ApplicationId>,
        /// Permissions of the key.
        role: Role,
        /// True if the key was revoked.
        is_revoked: bool,
    },
}

/// Applications of a search: one, or the newest for an administrator.
#[derive(Debug, Clone)]
pub struct Searched {
    applications: Vec<ApplicationId>,
    only: Option<ApplicationId>,
}

impl Searched {
    fn ids(&self) -> Vec<Uuid> {
        self.applications.iter().map(|id| id.0).collect()
    }

    fn only(&self) -> Option<Uuid> {
        self.only.map(|id| id.0)
    }
}

impl Store {
    /// Applications of a search; without `only` the newest applications.
    pub async fn searched(&self, only: Option<ApplicationId>) -> Result<Searched, StoreError> {
        if let Some(application) = only {
            return Ok(Searched { applications: vec![application], only });
        }
        let statement = format!("SELECT id FROM applications ORDER BY id DESC LIMIT {MAX_APPLICATIONS}");
        let rows = self.connection().await?.query(&statement, &[]).await?;
        Ok(Searched { applications: rows.iter().map(|row| ApplicationId(row.get(0))).collect(), only })
    }

    /// Finds the event of an id.
    pub async fn find_event(&self, of: &Searched, event: EventId) -> Result<Vec<Hit>, StoreError> {
        self.find_events(of.applications.iter().map(|application| (*application, event)).collect()).await
    }

    /// Finds the events that the applications published under `key`: their ids are derived from the key.
    pub async fn find_key(&self, of: &Searched, key: &str) -> Result<Vec<Hit>, StoreError> {
        let event = |application: &ApplicationId| (*application, EventId::from_key(*application, key));
        self.find_events(of.applications.iter().map(event).collect()).await
    }

    async fn find_events(&self, wanted: Vec<(ApplicationId, EventId)>) -> Result<Vec<Hit>, StoreError> {
        let (applications, events): (Vec<Uuid>, Vec<Uuid>) = wanted.iter().map(|(one, event)| (one.0, event.0)).unzip();
        let known: Vec<Option<Timestamp>> = wanted.iter().map(|(_, event)| event.accepted_at()).collect();
        // The oldest key of an event decides.
        let statement = format!(
            "SELECT e.id, e.application_id, e.type, e.accepted_at
             FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS wanted(application_id, id, accepted_at)
             CROSS JOIN LATERAL (SELECT coalesce(wanted.accepted_at, (
                 SELECT k.accepted_at FROM event_keys k WHERE k.event_id = wanted.id ORDER BY k.month LIMIT 1
             )) AS accepted_at OFFSET 0) moment
             CROSS JOIN LATERAL (
                 SELECT * FROM events e WHERE e.application_id = wanted.application_id
                     AND e.accepted_at = moment.accepted_at AND e.id = wanted.id OFFSET 0) e
             LIMIT {MAX_HITS}"
        );
        let rows = self.connection().await?.query(&statement, &[&applications, &events, &known]).await?;
        let hit = |row: &Row| Hit::Event {
            id: EventId(row.get("id")),
            application: ApplicationId(row.get("application_id")),
            event_type: row.get("type"),
            accepted_at: row.get("accepted_at"),
        };
        Ok(rows.iter().map(hit).collect())
    }

    /// Finds the delivery of an id.
    pub async fn find_delivery(&self, of: &Searched, delivery: DeliveryId) -> Result<Vec<Hit>, StoreError> {
        let statement = "SELECT found.application_id, p.url,
                    CASE WHEN found.state = 'queued' AND p.status = 'paused' AND p.deleted_at IS NULL THEN 'held'
                         ELSE found.state END AS state
             FROM unnest($1::uuid[]) AS wanted(application_id)
             CROSS JOIN LATERAL (
                 SELECT o.application_id, o.endpoint_id, o.state, 0 AS rank FROM open_deliveries o
                 WHERE o.id = $2 AND o.application_id = wanted.application_id
                 UNION ALL
                 SELECT d.application_id, d.endpoint_id, d.state, 1 FROM deliveries d
                 WHERE d.application_id = wanted.application_id AND d.id = $2
                 ORDER BY rank LIMIT 1) found
             JOIN endpoints p ON p.id = found.endpoint_id";
        let rows = self.connection().await?.query(statement, &[&of.ids(), &delivery.0]).await?;
        let hit = |row: &Row| {
            let state: &str = row.get("state");
            Ok(Hit::Delivery {
                id: delivery,
                application: ApplicationId(row.get("application_id")),
                url: row.get("url"),
                state: State::parse(state)
                    .ok_or_else(|| StoreError::corrupt("deliveries", format!("state {state:?}")))?,
            })
        };
        rows.iter().map(hit).collect()
    }

    /// Finds the attempt of an id. The id begins with the acceptance of the event: derives the ids of a bounded number
    /// of attempts of the same millisecond, and compares.
    pub async fn find_attempt(&self, of: &Searched, attempt: AttemptId) -> Result<Vec<Hit>, StoreError> {
        let (first, last) = DeliveryId::bounds(attempt.accepted_at());
        let statement = format!(
            "(SELECT a.application_id, a.delivery_id, a.attempt FROM attempts a
              WHERE a.delivery_id BETWEEN $2 AND $3 AND ($4::uuid IS NULL OR a.application_id = $4)
              LIMIT {MAX_ATTEMPTS})
             UNION ALL
             (SELECT d.application_id, d.id, 1 FROM unnest($1::uuid[]) AS wanted(application_id)
              CROSS JOIN LATERAL (
                  SELECT * FROM deliveries d WHERE d.application_id = wanted.application_id
                      AND d.id BETWEEN $2 AND $3 AND d.started_at IS NOT NULL LIMIT {MAX_ATTEMPTS}) d
              LIMIT {MAX_ATTEMPTS})"
        );
        let parameters: [&(dyn ToSql + Sync); 4] = [&of.ids(), &first.0, &last.0, &of.only()];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        let made = rows.iter().map(|row| {
            let delivery = DeliveryId(row.get("delivery_id"));
            (ApplicationId(row.get("application_id")), delivery, row.get::<_, i32>("attempt").cast_unsigned())
        });
        let same = |(_, delivery, number): &(_, DeliveryId, u32)| AttemptId::derive(*delivery, *number) == attempt;
        let hit =
            |(application, delivery, number)| Hit::Attempt { id: attempt, application, delivery, attempt: number };
        Ok(made.filter(same).map(hit).collect())
    }

    /// Finds the endpoint of an id, deleted or not.
    pub async fn find_endpoint(&self, of: &Searched, endpoint: EndpointId) -> Result<Vec<Hit>, StoreError> {
        let statement = "SELECT id, application_id, name, url, deleted_at IS NOT NULL AS is_deleted
                         FROM endpoints WHERE id = $1 AND ($2::uuid IS NULL OR application_id = $2)";
        let rows = self.connection().await?.query(statement, &[&endpoint.0, &of.only()]).await?;
        Ok(rows.iter().map(read_endpoint).collect())
    }

    /// Finds endpoints with a text in name or URL, in any case, newest first.
    pub async fn find_endpoints(&self, of: &Searched, text: &str) -> Result<Vec<Hit>, StoreError> {
        let scope = if of.only.is_some() { "application_id = $2" } else { "$2::uuid IS NULL" };
        let statement = format!(
            "SELECT id, application_id, name, url, false AS is_deleted FROM (
                 SELECT id, application_id, name, url FROM endpoints WHERE {scope} AND deleted_at IS NULL
                 ORDER BY id DESC LIMIT {MAX_WALKED}) newest
             WHERE strpos(lower(url), lower($1)) > 0 OR strpos(lower(coalesce(name, '')), lower($1)) > 0
             ORDER BY id DESC LIMIT {MAX_HITS}"
        );
        let rows = self.connection().await?.query(&statement, &[&text, &of.only()]).await?;
        Ok(rows.iter().map(read_endpoint).collect())
    }

    /// Finds the application of an id.
    pub async fn find_application(&self, of: &Searched, application: ApplicationId) -> Result<Vec<Hit>, StoreError> {
        let statement = "SELECT id, name FROM applications WHERE id = $1 AND ($2::uuid IS NULL OR id = $2)";
        let rows = self.connection().await?.query(statement, &[&application.0, &of.only()]).await?;
        Ok(rows.iter().map(read_application).collect())
    }

    /// Finds applications with a text in their name, in any case, newest first.
    pub async fn find_applications(&self, text: &str) -> Result<Vec<Hit>, StoreError> {
        let statement = format!(
            "SELECT id, name FROM (SELECT id, name FROM applications ORDER BY id DESC LIMIT {MAX_WALKED}) newest
             WHERE strpos(lower(name), lower($1)) > 0 ORDER BY id DESC LIMIT {MAX_HITS}"
        );
        let rows = self.connection().await?.query(&statement, &[&text]).await?;
        Ok(rows.iter().map(read_application).collect())
    }

    /// Finds the replay of an id.
    pub async fn find_replay(&self, of: &Searched, replay: ReplayId) -> Result<Vec<Hit>, StoreError> {
        let statement = "SELECT application_id, state, created_at FROM replays
                         WHERE id = $1 AND ($2::uuid IS NULL OR application_id = $2)";
        let rows = self.connection().await?.query(statement, &[&replay.0, &of.only()]).await?;
        let hit = |row: &Row| Hit::Replay {
            id: replay,
            application: ApplicationId(row.get("application_id")),
            state: row.get("state"),
            created_at: row.get("created_at"),
        };
        Ok(rows.iter().map(hit).collect())
    }

    /// Finds the parked message of an id.
    pub async fn find_parked(&self, parked: ParkedId) -> Result<Vec<Hit>, StoreError> {
        let statement = "SELECT id, reason, parked_at FROM parked WHERE id = $1";
        let rows = self.connection().await?.query(statement, &[&parked.0]).await?;
        Ok(rows.iter().map(read_parked).collect())
    }

    /// Finds parked messages by the publisher's id of the event, newest first.
    pub async fn find_parked_by_message_id(&self, text: &str) -> Result<Vec<Hit>, StoreError> {
        let statement = format!(
            "SELECT id, reason, parked_at FROM parked WHERE message_id = $1 ORDER BY parked_at DESC LIMIT {MAX_HITS}"
        );
        let rows = self.connection().await?.query(&statement, &[&text]).await?;
        Ok(rows.iter().map(read_parked).collect())
    }

    /// Finds the API key of an id.
    pub async fn find_api_key(&self, of: &Searched, key: KeyId) -> Result<Vec<Hit>, StoreError> {
        let statement = "SELECT application_id, role, revoked_at IS NOT NULL AS is_revoked FROM api_keys
                         WHERE id = $1 AND ($2::uuid IS NULL OR application_id = $2)";
        let rows = self.connection().await?.query(statement, &[&key.0, &of.only()]).await?;
        let hit = |row: &Row| {
            let role: &str = row.get("role");
            Ok(Hit::Key {
                id: key,
                application: row.get::<_, Option<Uuid>>("application_id").map(ApplicationId),
                role: Role::parse(role).ok_or_else(|| StoreError::corrupt("api_keys", format!("role {role:?}")))?,
                is_revoked: row.get("is_revoked"),
            })
        };
        rows.iter().map(hit).collect()
    }
}

fn read_endpoint(row: &Row) -> Hit {
    Hit::Endpoint {
        id: EndpointId(row.get("id")),
        application: ApplicationId(row.get("application_id")),
        name: row.get("name"),
        url: row.get("url"),
        is_deleted: row.get("is_deleted"),
    }
}

fn read_application(row: &Row) -> Hit {
    Hit::Application { id: ApplicationId(row.get("id")), name: row.get("name") }
}

fn read_parked(row: &Row) -> Hit {
    Hit::Parked { id: ParkedId(row.get("id")), reason: row.get("reason"), parked_at: row.get("parked_at") }
}
