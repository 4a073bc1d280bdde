//! Tells owners of failed deliveries by mail: at once of the first, and then of all that fail in a digest's time
//! in one mail. A server that is down delays mails, and nothing else.

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

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);

/// How long failures gather before the first mail tells of them: many deliveries fail together.
const GATHERING: Duration = Duration::from_secs(5);

/// Recipients who are written to in one look.
const RECIPIENTS: usize = 20;

/// How old news is that nobody is told any more.
const OLD_NEWS: Duration = Duration::from_secs(7 * 86400);

/// The same where this process knows no mail server: by then another one, which does, had its time.
const NOBODYS_NEWS: Duration = Duration::from_secs(3600);

/// Notices that are deleted by one statement.
const DELETED_AT_ONCE: usize = 50_000;

/// How long a server that cannot be used is left alone.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The mail job.
#[derive(Clone)]
pub(crate) struct Mail {
    pub(crate) database: Database,
    /// None where no mail server is set.
    pub(crate) mailer: Option<Mailer>,
    /// A recipient gets one mail in this time at the most.
    pub(crate) interval: Duration,
}

impl Mail {
    /// Writes mails until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if self.mailer.is_none() {
            tracing::info!("FANFARE_SMTP_URL is not set: no owner is told of failed deliveries by mail");
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
                "failed deliveries that nobody could be told of for a week are forgotten"
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

    /// Writes to one recipient. The inner error is the server's, and not this mail's.
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
        // Before it is sent, so that whatever fails from here on cannot become one mail after another.
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
            // A process that stops does not wait for a database that is away: one mail more is the price.
            if let Some(settled) = stop.run_until_cancelled(settling).await {
                settled.result?;
            }
        }
        Ok(Ok(()))
    }
}

/// How long the server is left alone: longer with each failure in a row.
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

/// Without the address, which is a person's.
fn log(notices: &Notices, sent: &Result<(), NotSent>) {
    let Some(first) = notices.told.first() else { return };
    let (application, endpoint) = (first.application, first.endpoint);
    let (deliveries, endpoints) = (notices.told.len(), notices.endpoint_count);
    match sent {
        Ok(()) => tracing::info!(deliveries, endpoints, %application, %endpoint, "told an owner of failed deliveries"),
        Err(NotSent::Recipient(cause)) => {
            tracing::warn!(
                %cause, deliveries, endpoints, %application, %endpoint,
                "the mail server refuses an owner's address for good; these failed deliveries are told to nobody"
            );
        }
        Err(NotSent::Mail(cause) | NotSent::Server(cause)) => {
            tracing::warn!(
                %cause, deliveries, endpoints, %application, %endpoint,
                "the mail server does not take a mail; it is tried again with the next digest"
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
