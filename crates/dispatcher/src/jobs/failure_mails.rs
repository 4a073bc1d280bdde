//! Failure mails to owners of endpoints. The first mail reports a failure within seconds, each further mail all
//! failures since. An unavailable mail server delays mails, and nothing else.

mod letter;
mod smtp;

use std::time::Duration;

use fanfare_store::{Job, Notices, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use smtp::{Mailer, SmtpServer};

use super::Schedule;
use crate::{database::Database, metric};
use letter::{BOUNDS, Letter};
use smtp::{Cause, NotSent};

/// Interval of the job.
const EVERY: Duration = Duration::from_secs(5);

/// Wait between a failure and the mail: many deliveries fail together.
const GATHERING: Duration = Duration::from_secs(5);

/// Maximum of recipients in a run.
const RECIPIENTS: usize = 20;

/// Age from which on a notice is deleted unreported.
const OLD_NEWS: Duration = Duration::from_secs(7 * 86400);

/// The same for a process without a mail server. A process with a mail server has had time to send the mail by then.
const NOBODYS_NEWS: Duration = Duration::from_secs(3600);

/// Maximum of notices deleted by a statement.
const DELETED_AT_ONCE: usize = 50_000;

/// Rest of an unusable mail server, doubled with each failure up to the longest.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Mail {
    pub(crate) database: Database,
    /// `None` without a mail server.
    pub(crate) mailer: Option<Mailer>,
    /// Minimum time between two mails to a recipient.
    pub(crate) interval: Duration,
}

impl Mail {
    /// Sends mails until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if self.mailer.is_none() {
            tracing::info!("FANFARE_SMTP_URL is not set: no failure mails are sent");
        }
        let schedule = Schedule { database: self.database.clone(), job: Job::Mail, every: EVERY, stop: stop.clone() };
        let mut rest = Rest::default();
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.look(&mut rest, &stop)).await;
        }
    }

    async fn look(&self, rest: &mut Rest, stop: &CancellationToken) -> Result<(), StoreError> {
        let store = &self.database.store;
        let Some(mailer) = &self.mailer else {
            return store.forget_notices(NOBODYS_NEWS, DELETED_AT_ONCE).await.map(drop);
        };
        let forgotten = store.forget_notices(OLD_NEWS, DELETED_AT_ONCE).await?;
        if forgotten > 0 {
            tracing::warn!(
                deliveries = forgotten,
                "deleted notices of failed deliveries that no mail could report for a week"
            );
        }
        store.tidy_mails(self.interval, DELETED_AT_ONCE).await?;
        if !rest.is_over() {
            return Ok(());
        }
        for address in store.owed_mails(self.interval, GATHERING, RECIPIENTS).await? {
            if stop.is_cancelled() {
                break;
            }
            if let Err(cause) = self.tell(mailer, &address, stop).await? {
                rest.lengthen();
                metrics::counter!(metric::MAILS, "result" => "failed").increment(1);
                tracing::warn!(%cause, wait = ?rest.wait, "the mail server cannot be used; mails wait");
                break;
            }
            *rest = Rest::default();
        }
        Ok(())
    }

    /// Sends a mail to a recipient. The inner error concerns the server, not this mail.
    async fn tell(
        &self,
        mailer: &Mailer,
        address: &str,
        stop: &CancellationToken,
    ) -> Result<Result<(), Cause>, StoreError> {
        let store = &self.database.store;
        let notices = store.notices(address, BOUNDS).await?;
        let Some(newest) = notices.told.last() else { return Ok(Ok(())) };
        let id = format!("{}.{}", newest.failed_at.as_microsecond(), newest.delivery);
        let connection = match stop.run_until_cancelled(mailer.connect()).await {
            Some(Ok(connection)) => connection,
            Some(Err(cause)) => return Ok(Err(cause)),
            None => return Ok(Ok(())),
        };
        // Before the send, so that a failure from here on cannot cause mail after mail.
        if !store.reserve_mail(address, self.interval).await? {
            return Ok(Ok(()));
        }
        let sent = mailer.send(connection, address, Letter::about(&notices), &id).await;
        let (result, is_settled) = match sent {
            Ok(()) => ("sent", true),
            Err(NotSent::Recipient(_)) => ("refused", true),
            Err(NotSent::Mail(_)) => ("failed", false),
            Err(NotSent::Server(cause)) => return Ok(Err(cause)),
        };
        metrics::counter!(metric::MAILS, "result" => result).increment(1);
        log(&notices, &sent);
        if is_settled {
            let settle = || store.settle_notices(address, &notices.told);
            let settling = self.database.until_answered("settling notices", settle);
            // A stopping process does not wait for the database. The price is a second mail about the same failures.
            if let Some(settled) = stop.run_until_cancelled(settling).await {
                settled.result?;
            }
        }
        Ok(Ok(()))
    }
}

/// Rest of the mail server, longer after each consecutive failure.
#[derive(Default)]
struct Rest {
    wait: Duration,
    until: Option<Instant>,
}

impl Rest {
    fn lengthen(&mut self) {
        self.wait = (self.wait * 2).clamp(FIRST_REST, LONGEST_REST);
        self.until = Some(Instant::now() + self.wait);
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }
}

/// Logs the result of a mail, without the address: an address is personal data.
fn log(notices: &Notices, sent: &Result<(), NotSent>) {
    let Some(first) = notices.told.first() else { return };
    let (application, endpoint) = (first.application, first.endpoint);
    let (deliveries, endpoints) = (notices.told.len(), notices.endpoint_count);
    match sent {
        Ok(()) => tracing::info!(deliveries, endpoints, %application, %endpoint, "sent a failure mail to an owner"),
        Err(NotSent::Recipient(cause)) => {
            tracing::warn!(
                %cause, deliveries, endpoints, %application, %endpoint,
                "the mail server refuses an owner's address for good; no mail reports these failed deliveries"
            );
        }
        Err(NotSent::Mail(cause) | NotSent::Server(cause)) => {
            tracing::warn!(
                %cause, deliveries, endpoints, %application, %endpoint,
                "the mail server does not accept a mail; the next mail reports these failed deliveries"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_alone_for_longer_each_time_and_at_most_a_minute() {
        let mut rest = Rest::default();
        assert!(rest.is_over());
        for seconds in [5, 10, 20, 40, 60, 60] {
            rest.lengthen();
            assert_eq!((rest.wait, rest.is_over()), (Duration::from_secs(seconds), false));
        }
    }
}
