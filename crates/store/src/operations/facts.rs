//! Facts for findings: bounded looks at tables of open deliveries, backlogs, processes, queues, jobs and counts.

use fanfare_domain::{
    diagnosis::{
        findings::{
            ApplicationFacts, ApplicationLoad, CERTIFICATE_ENDS_SOON, CertificateFact, DueDeliveries, ExpiringFact,
            Facts, HeldFact, JobFact, MAX_HELD, MAX_LATE, MAX_PARKED, MAX_PARKED_KEYS, ParkedGroup, ProcessFact,
            QueueFact, RotationFact, Stop, StoppedFact,
        },
        rollup::{Counts, HOUR, STEP, floor},
    },
    ids::{ApplicationId, EndpointId},
    time::saturating_sub,
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    JobRun, ProcessKind, ProcessRow, QueueDepthRow, Store, StoreError, TroubledEndpoint,
    history::stats::{StatsStep, StatsSubject},
    operations::{census::DAYS, partitions::DAILY, troubled::host},
};

/// Maximum of applications, endpoints and rotations of a list.
const MAX_LISTED: i64 = 20;

/// Backlogs whose oldest delivery is looked at for its expiry: the oldest.
const MAX_BACKLOGS: i64 = 100;

impl Store {
    /// Facts on the whole deployment, with `endpoints` in trouble ([`Self::troubled_endpoints`]), processes, queues and
    /// jobs.
    pub async fn facts(
        &self,
        endpoints: &[TroubledEndpoint],
        processes: &[ProcessRow],
        queues: &[QueueDepthRow],
        jobs: &[JobRun],
    ) -> Result<Facts, StoreError> {
        let counted_until = self.rollup_marks().await?.counted;
        let since = saturating_sub(floor(counted_until, STEP), STEP);
        let recent = self.sum(StatsSubject::All, (since, counted_until)).await?;
        let days = self.connection().await?.query_one(DAYS, &[&DAILY.as_slice()]).await?;
        Ok(Facts {
            now: self.now(),
            due: self.due_deliveries().await?,
            processes: processes.iter().map(process_fact).collect(),
            queues: queues.iter().map(queue_fact).collect(),
            parked: self.newest_parked_groups().await?,
            endpoints: endpoints.iter().map(|endpoint| endpoint.fact.clone()).collect(),
            applications: self.loads((since, counted_until), recent.events).await?,
            rotations: self.ending_rotations(None).await?,
            certificates: self.ending_certificates(None).await?,
            held: self.held_backlogs(None).await?,
            expiring: self.oldest_expiries(None).await?,
            partitions_ahead: days.get("ahead"),
            days_to_archive: days.get("to_archive"),
            jobs: jobs.iter().map(job_fact).collect(),
            counted_until,
            recent,
        })
    }

    /// Facts on an application.
    pub async fn application_facts(&self, application: ApplicationId) -> Result<ApplicationFacts, StoreError> {
        let now = self.now();
        let endpoints = self.troubled_endpoints(Some(application)).await?;
        let subject = StatsSubject::Application(application);
        Ok(ApplicationFacts {
            application,
            now,
            endpoints: endpoints.into_iter().map(|endpoint| endpoint.fact).collect(),
            stopped: self.stopped_endpoints(application).await?,
            rotations: self.ending_rotations(Some(application)).await?,
            certificates: self.ending_certificates(Some(application)).await?,
            held: self.held_backlogs(Some(application)).await?,
            expiring: self.oldest_expiries(Some(application)).await?,
            recent: self.sum(subject, (saturating_sub(now, HOUR), now)).await?,
        })
    }

    async fn sum(&self, subject: StatsSubject, time: (Timestamp, Timestamp)) -> Result<Counts, StoreError> {
        let mut sum = Counts::default();
        for counts in self.stats(subject, time, StatsStep::FiveMinutes).await?.values() {
            sum.add(counts);
        }
        Ok(sum)
    }

    async fn due_deliveries(&self) -> Result<DueDeliveries, StoreError> {
        let statement = format!(
            "
SELECT late.count, late.oldest,
       (SELECT min(next_look) FROM endpoint_backlogs WHERE owner IS NULL AND next_look < now()) AS unowned
FROM (SELECT count(*), min(due_at) AS oldest FROM (
          SELECT due_at FROM open_deliveries WHERE state = 'scheduled' AND due_at < now() - interval '10 s'
          ORDER BY due_at LIMIT {MAX_LATE}) rows) late"
        );
        let row = self.connection().await?.query_one(&statement, &[]).await?;
        Ok(DueDeliveries {
            retries: row.get::<_, i64>("count").unsigned_abs(),
            oldest_retry: row.get("oldest"),
            unowned_since: row.get("unowned"),
        })
    }

    /// The newest parked messages by reason.
    async fn newest_parked_groups(&self) -> Result<Vec<ParkedGroup>, StoreError> {
        let statement = format!(
            "SELECT reason, count(*), max(parked_at), min(parked_at)
             FROM (SELECT reason, parked_at FROM parked ORDER BY id DESC LIMIT {MAX_PARKED}) rows
             GROUP BY reason ORDER BY 3 DESC"
        );
        let group = |row: &Row| ParkedGroup {
            reason: row.get(0),
            messages: row.get::<_, i64>(1).unsigned_abs(),
            newest: row.get(2),
            oldest: row.get(3),
        };
        Ok(self.connection().await?.query(&statement, &[]).await?.iter().map(group).collect())
    }

    /// The loudest applications of a time, and applications whose backlogs wait for us.
    async fn loads(
        &self,
        (since, until): (Timestamp, Timestamp),
        events: u64,
    ) -> Result<Vec<ApplicationLoad>, StoreError> {
        let statement = "
WITH loud AS (
    SELECT subject AS id, sum(events) AS events FROM rollups WHERE kind = 1 AND at >= $1 AND at < $2
    GROUP BY 1 HAVING sum(events) > 0 ORDER BY 2 DESC LIMIT $3
), busy AS (
    SELECT application_id AS id, count(*) FILTER (WHERE reason = 'application_busy') AS busy,
           count(*) FILTER (WHERE reason = 'application_unreadable') AS unreadable
    FROM endpoint_backlogs
    WHERE reason IN ('application_busy', 'application_unreadable') AND since < now() - interval '30 s' GROUP BY 1 LIMIT $3
)
SELECT a.id, a.name, coalesce(a.publish_rate, p.publish_rate) AS publish_rate, coalesce(l.events, 0)::bigint AS events, coalesce(b.busy, 0) AS busy,
       coalesce(b.unreadable, 0) AS unreadable
FROM loud l FULL JOIN busy b ON b.id = l.id JOIN applications a ON a.id = coalesce(l.id, b.id)
LEFT JOIN plans p ON p.name = a.plan ORDER BY 4 DESC";
        let rows = self.connection().await?.query(statement, &[&since, &until, &MAX_LISTED]).await?;
        let seconds = until.duration_since(since).as_secs_f64().max(1.0);
        let load = |row: &Row| {
            let count = |column: &str| row.get::<_, i64>(column).unsigned_abs();
            let own = count("events");
            ApplicationLoad {
                application: ApplicationId(row.get("id")),
                name: row.get("name"),
                // Counts are exact in `f64` up to 2^53.
                events_per_second: own as f64 / seconds,
                share: own as f64 / events.max(1) as f64,
                limit: row.get::<_, Option<i32>>("publish_rate").map(i32::unsigned_abs),
                busy_backlogs: count("busy"),
                unreadable_backlogs: count("unreadable"),
            }
        };
        Ok(rows.iter().map(load).collect())
    }

    async fn ending_rotations(&self, application: Option<ApplicationId>) -> Result<Vec<RotationFact>, StoreError> {
        let statement = "SELECT p.application_id, p.id, p.url, s.expires_at FROM endpoint_secrets s
                         JOIN endpoints p ON p.id = s.endpoint_id AND p.deleted_at IS NULL
                         WHERE s.expires_at > now() AND s.expires_at < now() + interval '1 hour'
                           AND ($1::uuid IS NULL OR p.application_id = $1) ORDER BY s.expires_at LIMIT $2";
        let rows = self.of_application(statement, application, MAX_LISTED).await?;
        let rotation = |row: &Row| {
            let (application, endpoint, host) = place(row);
            RotationFact { application, endpoint, host, ends_at: row.get("expires_at") }
        };
        Ok(rows.iter().map(rotation).collect())
    }

    /// Endpoints with parked ordering keys, and endpoints that an answer disabled in the last week.
    async fn stopped_endpoints(&self, application: ApplicationId) -> Result<Vec<StoppedFact>, StoreError> {
        let statement = format!(
            "SELECT p.application_id, p.id, p.url, k.since, k.keys FROM endpoints p CROSS JOIN LATERAL (
                 SELECT min(parked_at) AS since, count(*) AS keys FROM (
                     SELECT parked_at FROM ordering_keys k WHERE k.endpoint_id = p.id AND k.parked_at IS NOT NULL
                     LIMIT {MAX_PARKED_KEYS}) rows) k
             WHERE p.application_id = $1 AND p.fifo IS NOT NULL AND p.deleted_at IS NULL AND k.keys > 0
               AND p.status <> 'disabled'
             UNION ALL
             SELECT p.application_id, p.id, p.url, p.updated_at, NULL FROM endpoints p
             WHERE p.application_id = $1 AND p.status_reason IS NOT NULL AND p.deleted_at IS NULL
               AND p.status = 'disabled' AND p.updated_at > now() - interval '7 days'
             ORDER BY since LIMIT $2"
        );
        let rows = self.of_application(&statement, Some(application), MAX_LISTED).await?;
        let stopped = |row: &Row| {
            let (application, endpoint, host) = place(row);
            let keys: Option<i64> = row.get("keys");
            let cause = keys.map_or(Stop::DisabledByAnswer, |keys| Stop::ParkedKeys(keys.unsigned_abs()));
            StoppedFact { application, endpoint, host, since: row.get("since"), cause }
        };
        Ok(rows.iter().map(stopped).collect())
    }

    /// The client certificates of enabled and paused endpoints that end first.
    async fn ending_certificates(
        &self,
        application: Option<ApplicationId>,
    ) -> Result<Vec<CertificateFact>, StoreError> {
        let statement = format!(
            "SELECT p.application_id, p.id, p.url, p.certificate_ends_at FROM endpoints p
             WHERE p.certificate_ends_at < now() + interval '{} s' AND p.deleted_at IS NULL AND p.status <> 'disabled'
               AND p.feed <> 'only' AND ($1::uuid IS NULL OR p.application_id = $1) ORDER BY p.certificate_ends_at LIMIT $2",
            CERTIFICATE_ENDS_SOON.as_secs()
        );
        let rows = self.of_application(&statement, application, MAX_LISTED).await?;
        let ending = |row: &Row| {
            let (application, endpoint, host) = place(row);
            CertificateFact { application, endpoint, host, ends_at: row.get("certificate_ends_at") }
        };
        Ok(rows.iter().map(ending).collect())
    }

    /// The longest paused endpoints with held deliveries. Counts no further than the findings need, at most half of
    /// what the job that bounds held deliveries reads every 5 s.
    async fn held_backlogs(&self, application: Option<ApplicationId>) -> Result<Vec<HeldFact>, StoreError> {
        let statement = format!(
            "WITH paused AS MATERIALIZED (
                 SELECT b.application_id, p.id, p.url, b.since FROM endpoint_backlogs b
                 JOIN endpoints p ON p.id = b.endpoint_id AND p.status = 'paused' AND p.deleted_at IS NULL
                 WHERE b.owner IS NULL AND ($1::uuid IS NULL OR b.application_id = $1) ORDER BY b.since LIMIT $2
             )
             SELECT paused.*, m.max_held, m.max_held_age_s,
                    (SELECT count(*) FROM (SELECT FROM open_deliveries o WHERE o.endpoint_id = paused.id
                                           AND o.state = 'queued' LIMIT least(m.max_held / 2 + 1, {MAX_HELD})) rows) AS held
             FROM paused, (SELECT min(max_held) AS max_held, min(max_held_age_s) AS max_held_age_s FROM processes
                           WHERE alive_until > now() AND NOT is_dead) m"
        );
        let rows = self.of_application(&statement, application, MAX_LISTED).await?;
        let held = |row: &Row| {
            let (application, endpoint, host) = place(row);
            let bound = |column: &str| row.get::<_, Option<i64>>(column).map(i64::unsigned_abs);
            HeldFact {
                application,
                endpoint,
                host,
                held: row.get::<_, i64>("held").unsigned_abs(),
                since: row.get("since"),
                max_held: bound("max_held"),
                max_age: bound("max_held_age_s").map(std::time::Duration::from_secs),
            }
        };
        Ok(rows.iter().map(held).collect())
    }

    /// Expiries within the hour of the first delivery in the oldest backlogs.
    async fn oldest_expiries(&self, application: Option<ApplicationId>) -> Result<Vec<ExpiringFact>, StoreError> {
        let statement = "
WITH oldest AS MATERIALIZED (
    SELECT application_id, endpoint_id FROM endpoint_backlogs
    WHERE $1::uuid IS NULL OR application_id = $1 ORDER BY since LIMIT $2
)
SELECT oldest.application_id, p.id, p.url, o.expires_at FROM oldest
JOIN endpoints p ON p.id = oldest.endpoint_id AND p.status = 'enabled' AND p.deleted_at IS NULL
CROSS JOIN LATERAL (SELECT expires_at FROM open_deliveries o WHERE o.endpoint_id = p.id AND o.state = 'queued'
                      AND o.class < 2 ORDER BY o.class, o.id LIMIT 1) o
WHERE o.expires_at < now() + interval '1 hour' ORDER BY o.expires_at LIMIT 20";
        let rows = self.of_application(statement, application, MAX_BACKLOGS).await?;
        let expiring = |row: &Row| {
            let (application, endpoint, host) = place(row);
            ExpiringFact { application, endpoint, host, expires_at: row.get("expires_at") }
        };
        Ok(rows.iter().map(expiring).collect())
    }

    async fn of_application(
        &self,
        statement: &str,
        application: Option<ApplicationId>,
        limit: i64,
    ) -> Result<Vec<Row>, StoreError> {
        let application: Option<Uuid> = application.map(|id| id.0);
        Ok(self.connection().await?.query(statement, &[&application, &limit]).await?)
    }
}

fn place(row: &Row) -> (ApplicationId, EndpointId, String) {
    (ApplicationId(row.get("application_id")), EndpointId(row.get("id")), host(row.get("url")))
}

fn process_fact(row: &ProcessRow) -> ProcessFact {
    ProcessFact {
        id: row.id,
        is_dispatcher: row.kind == ProcessKind::Dispatcher,
        host: row.host.clone(),
        version: row.version.clone(),
        settings: row.settings.clone(),
        is_alive: row.is_alive,
        seen_at: row.seen_at,
        has_broker: row.report.has_broker,
        has_database: row.report.has_database,
        places: (row.report.places_used, row.report.places),
        events_in_hand: row.report.events_in_hand,
        longest_wait: row.report.longest_wait,
        due: row.report.due,
        clock_offset: row.report.clock_offset,
    }
}

fn job_fact(run: &JobRun) -> JobFact {
    JobFact { job: run.job.clone(), error: run.error.clone(), succeeded_at: run.succeeded_at }
}

fn queue_fact(row: &QueueDepthRow) -> QueueFact {
    QueueFact {
        queue: row.queue.clone(),
        ready: row.ready.unsigned_abs(),
        ready_before: row.ready_before.unsigned_abs(),
        consumers: row.consumers.unsigned_abs(),
    }
}
