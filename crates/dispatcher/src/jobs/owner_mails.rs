//! Mails to owners of endpoints, about failed deliveries and changed conditions. The first mail reports a failure
//! within seconds, each further mail all since. An unavailable mail server delays mails, and nothing else.

mod content;

use std::time::Duration;

use fanfare_mailer::{Mail, Mailer, SendError, SmtpError};
use fanfare_store::{Job, Notices, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Schedule;
use crate::{database::Database, metric};
use content::{BOUNDS, Content};

/// Interval of the job.
const EVERY: Duration = Duration::from_secs(5);

/// Wait between a failure and the mail: many deliveries fail together.
const GATHERING: Duration = Duration::from_secs(5);

/// Time in which a run begins mails. A mail takes up to 20 s, and a run ends after 120 s.
const SENDING: Duration = Duration::from_secs(90);

/// Maximum of recipients in a run.
const RECIPIENTS: usize = 20;

/// Age from which on a notice is deleted unreported.
const NOTICE_MAX_AGE: Duration = Duration::from_secs(7 * 86400);

/// The same for a process without a mail server. A process with a mail server has had time to send the mail by then.
const NOTICE_MAX_AGE_WITHOUT_SERVER: Duration = Duration::from_secs(3600);

/// Maximum of notices deleted by a statement.
const DELETED_AT_ONCE: usize = 50_000;

/// Wait after a failure of the mail server, doubled with each failure up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct OwnerMails {
    pub(crate) database: Database,
    /// `None` without a mail server.
    pub(crate) mailer: Option<Mailer>,
    /// Minimum time between two mails to a recipient.
    pub(crate) interval: Duration,
}

impl OwnerMails {
    /// Sends mails until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if self.mailer.is_none() {
            tracing::info!("FANFARE_SMTP_URL is not set: no mails are sent to owners");
        }
        let schedule = Schedule::new(self.database.clone(), Job::Mail, EVERY, stop.clone());
        let mut backoff = Backoff::default();
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.send_due(&mut backoff, &stop)).await;
        }
    }

    async fn send_due(&self, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), StoreError> {
        let store = &self.database.store;
        let Some(mailer) = &self.mailer else {
            return store.forget_notices(NOTICE_MAX_AGE_WITHOUT_SERVER, DELETED_AT_ONCE).await.map(drop);
        };
        let forgotten = store.forget_notices(NOTICE_MAX_AGE, DELETED_AT_ONCE).await?;
        if forgotten > 0 {
            tracing::warn!(
                notices = forgotten,
                "deleted notices of failed deliveries and changed conditions that no mail could report for a week"
            );
        }
        store.tidy_mails(self.interval, DELETED_AT_ONCE).await?;
        if !backoff.is_over() {
            return Ok(());
        }
        let began = Instant::now();
        for address in store.owed_mails(self.interval, GATHERING, RECIPIENTS).await? {
            if stop.is_cancelled() || began.elapsed() > SENDING {
                break;
            }
            if let Err(cause) = self.notify(mailer, &address, stop).await? {
                backoff.lengthen();
                metrics::counter!(metric::MAILS, "result" => "failed").increment(1);
                tracing::warn!(%cause, wait = ?backoff.wait, "the mail server cannot be used; mails wait");
                break;
            }
            *backoff = Backoff::default();
        }
        Ok(())
    }

    /// Sends a mail to a recipient. The inner error concerns the server, not this mail.
    async fn notify(
        &self,
        mailer: &Mailer,
        address: &str,
        stop: &CancellationToken,
    ) -> Result<Result<(), SmtpError>, StoreError> {
        let store = &self.database.store;
        let notices = store.notices(address, BOUNDS).await?;
        let Some(id) = id(&notices) else { return Ok(Ok(())) };
        let connection = match stop.run_until_cancelled(mailer.connect()).await {
            Some(Ok(connection)) => connection,
            Some(Err(cause)) => return Ok(Err(cause)),
            None => return Ok(Ok(())),
        };
        // Before the send, so that a failure from here on cannot cause mail after mail.
        if !store.reserve_mail(address, self.interval).await? {
            return Ok(Ok(()));
        }
        let Content { subject, text } = Content::new(&notices);
        let sent = mailer.send(connection, Mail { recipient: address.to_owned(), subject, text, id }).await;
        // `None` for a mail that a later mail repeats.
        let (result, are_reported) = match sent {
            Ok(()) => ("sent", Some(true)),
            Err(SendError::Recipient(_)) => ("refused", Some(false)),
            Err(SendError::Mail(_)) => ("failed", None),
            Err(SendError::Server(cause)) => return Ok(Err(cause)),
        };
        metrics::counter!(metric::MAILS, "result" => result).increment(1);
        log(&notices, &sent);
        if let Some(are_reported) = are_reported {
            let settle = || store.settle_notices(address, &notices, are_reported);
            let settling = self.database.retry_until_available("settling notices", settle);
            // A stopping process does not wait for the database. The price is a second mail about the same failures.
            if let Some(settled) = stop.run_until_cancelled(settling).await {
                settled.result?;
            }
        }
        Ok(Ok(()))
    }
}

/// Id of a mail, the same if the same mail is sent again; `None` without content.
fn id(notices: &Notices) -> Option<String> {
    let failure = notices.notified.last().map(|newest| (newest.failed_at, newest.delivery.to_string()));
    let condition = notices.conditions.last().map(|newest| {
        let (endpoint, condition) = (newest.notice.endpoint, newest.notice.condition.as_str());
        (newest.told_at, format!("{endpoint}.{condition}"))
    });
    let parts = failure.into_iter().chain(condition).map(|(at, newest)| format!("{}.{newest}", at.as_microsecond()));
    Some(parts.collect::<Vec<_>>().join(".")).filter(|id| !id.is_empty())
}

/// Wait of all mails, longer after each consecutive failure of the mail server.
#[derive(Default)]
struct Backoff {
    wait: Duration,
    until: Option<Instant>,
}

impl Backoff {
    fn lengthen(&mut self) {
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        self.until = Some(Instant::now() + self.wait);
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }
}

/// Logs the result of a mail, without the address: an address is personal data.
fn log(notices: &Notices, sent: &Result<(), SendError>) {
    let failure = notices.notified.first().map(|first| (first.application, first.endpoint));
    let condition = || notices.conditions.first().map(|first| (first.application, first.notice.endpoint));
    let Some((application, endpoint)) = failure.or_else(condition) else { return };
    let (deliveries, conditions) = (notices.notified.len(), notices.conditions.len());
    match sent {
        Ok(()) => tracing::info!(deliveries, conditions, %application, %endpoint, "sent a mail to an owner"),
        Err(SendError::Recipient(cause)) => {
            tracing::warn!(
                %cause, deliveries, conditions, %application, %endpoint,
                "the mail server refuses an owner's address for good; no mail reports these failures and changes"
            );
        }
        Err(SendError::Mail(cause) | SendError::Server(cause)) => {
            tracing::warn!(
                %cause, deliveries, conditions, %application, %endpoint,
                "the mail server does not accept a mail; the next mail reports these failures and changes"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_minute() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_over());
        for seconds in [5, 10, 20, 40, 60, 60] {
            backoff.lengthen();
            assert_eq!((backoff.wait, backoff.is_over()), (Duration::from_secs(seconds), false));
        }
    }
}
