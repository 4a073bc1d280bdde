//! Sends acks and rejects to the broker in as few frames as the order allows. Each frame is an entry in the log of a
//! quorum queue.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::try_join_all;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicRejectOptions},
};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

/// Longest delay of an ack for earlier messages, so that a single frame acks all.
const PATIENCE: Duration = Duration::from_millis(10);

/// Acks and rejects of a channel's messages.
#[derive(Default)]
pub(crate) struct Acks {
    ends: Mutex<Ends>,
    changed: Notify,
}

impl Acks {
    /// Records the arrival of a message. Tags arrive in ascending order.
    pub(crate) fn begin(&self, tag: u64) {
        self.ends().open.insert(tag);
    }

    /// Records that a message is done, and may be acked.
    pub(crate) fn end(&self, tag: u64) {
        self.ends().end(tag);
        self.changed.notify_one();
    }

    /// Records that a message must be redelivered.
    pub(crate) fn reject(&self, tag: u64) {
        self.ends().reject(tag);
        self.changed.notify_one();
    }

    /// Sends acks and rejects until `close`, and then the rest. Fails with the channel; the broker then redelivers
    /// un-acked messages.
    pub(crate) async fn tell(&self, channel: &Channel, close: CancellationToken) -> lapin::Result<()> {
        loop {
            let is_closing = close.run_until_cancelled(self.changed.notified()).await.is_none();
            let (frames, is_all) = self.ends().take(false);
            send(channel, frames).await?;
            if !is_all {
                close.run_until_cancelled(sleep(PATIENCE)).await;
                let (frames, _) = self.ends().take(true);
                send(channel, frames).await?;
            }
            if is_closing {
                return Ok(());
            }
        }
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(channel: &Channel, frames: Frames) -> lapin::Result<()> {
    // Before the acks: a multiple ack would include the rejected messages.
    for tag in frames.rejected {
        // From RabbitMQ 4.3 on, basic.nack does not count against the delivery limit.
        channel.basic_reject(tag, BasicRejectOptions { requeue: true }).await?;
    }
    if let Some(tag) = frames.up_to {
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
    }
    try_join_all(frames.single.into_iter().map(|tag| channel.basic_ack(tag, BasicAckOptions::default()))).await?;
    Ok(())
}

/// Frames to send, by delivery tags.
#[derive(Debug, Default, PartialEq, Eq)]
struct Frames {
    rejected: Vec<u64>,
    /// Acks all messages up to this tag. The tag has not been acked before: the broker closes a channel that acks a
    /// message twice.
    up_to: Option<u64>,
    single: BTreeSet<u64>,
}

/// Open and finished messages.
#[derive(Debug, Default)]
struct Ends {
    open: BTreeSet<u64>,
    /// Finished messages that are not acked yet.
    ended: BTreeSet<u64>,
    rejected: Vec<u64>,
}

impl Ends {
    fn end(&mut self, tag: u64) {
        self.open.remove(&tag);
        self.ended.insert(tag);
    }

    fn reject(&mut self, tag: u64) {
        self.open.remove(&tag);
        self.rejected.push(tag);
    }

    /// Takes the frames to send now: the acks before the first open message, and with `all` also the other acks. The
    /// bool is true if no ack is left.
    fn take(&mut self, all: bool) -> (Frames, bool) {
        let behind = self.open.first().map(|first| self.ended.split_off(first)).unwrap_or_default();
        let up_to = std::mem::replace(&mut self.ended, behind).last().copied();
        let single = if all { std::mem::take(&mut self.ended) } else { BTreeSet::new() };
        let frames = Frames { rejected: std::mem::take(&mut self.rejected), up_to, single };
        (frames, self.ended.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A model of the broker: un-acked, acked and rejected messages.
    #[derive(Default)]
    struct Broker {
        unacked: BTreeSet<u64>,
        acked: BTreeSet<u64>,
        rejected: BTreeSet<u64>,
    }

    impl Broker {
        fn take(&mut self, frames: Frames) {
            for tag in frames.rejected {
                assert!(self.unacked.remove(&tag), "an unknown tag closes the channel");
                self.rejected.insert(tag);
            }
            if let Some(tag) = frames.up_to {
                assert!(self.unacked.contains(&tag), "an unknown tag closes the channel");
                let rest = self.unacked.split_off(&(tag + 1));
                self.acked.append(&mut self.unacked);
                self.unacked = rest;
            }
            for tag in frames.single {
                assert!(self.unacked.remove(&tag), "an unknown tag closes the channel");
                self.acked.insert(tag);
            }
        }
    }

    fn begun(count: u64) -> (Ends, Broker) {
        let open: BTreeSet<u64> = (1..=count).collect();
        (Ends { open: open.clone(), ..Ends::default() }, Broker { unacked: open, ..Broker::default() })
    }

    #[test]
    fn messages_that_end_in_order_share_an_ack() {
        let (mut ends, mut broker) = begun(100);
        (1..=60).chain(62..=80).for_each(|tag| ends.end(tag));
        let (frames, is_all) = ends.take(false);
        assert_eq!((&frames, is_all), (&Frames { up_to: Some(60), ..Frames::default() }, false));
        broker.take(frames);
        ends.end(61);
        let (frames, is_all) = ends.take(false);
        assert_eq!((&frames, is_all), (&Frames { up_to: Some(80), ..Frames::default() }, true));
        broker.take(frames);
        assert_eq!(broker.unacked.len(), 20);
    }

    proptest! {
        #[test]
        fn exactly_what_ended_is_told_and_nothing_twice(
            order in Just((1u64..=40).collect::<Vec<_>>()).prop_shuffle(),
            steps in prop::collection::vec((0u8..4, any::<bool>()), 40),
            ended in 0usize..=40,
        ) {
            let (mut ends, mut broker) = begun(40);
            let (mut acks, mut rejects) = (BTreeSet::new(), BTreeSet::new());
            for (tag, (step, all)) in order.into_iter().zip(steps).take(ended) {
                if step == 0 {
                    ends.reject(tag);
                    rejects.insert(tag);
                } else {
                    ends.end(tag);
                    acks.insert(tag);
                }
                if step < 3 {
                    broker.take(ends.take(all).0);
                    prop_assert!(broker.acked.is_subset(&acks));
                }
            }
            broker.take(ends.take(true).0);
            prop_assert_eq!(&broker.acked, &acks);
            prop_assert_eq!(&broker.rejected, &rejects);
            prop_assert_eq!(ends.take(true), (Frames::default(), true));
        }
    }
}
