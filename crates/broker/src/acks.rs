//! The ends of messages told to the broker, in as few frames as their order allows: each frame is an entry in the log
//! of a quorum queue.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicRejectOptions},
};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long the end of a message waits for those that came before it, so that one frame tells of all of them.
const PATIENCE: Duration = Duration::from_millis(10);

/// The ends of one channel's messages.
#[derive(Default)]
pub(crate) struct Acks {
    ends: Mutex<Ends>,
    changed: Notify,
}

impl Acks {
    /// A message needs nothing more.
    pub(crate) fn end(&self, tag: u64) {
        self.ends().ended.insert(tag);
        self.changed.notify_one();
    }

    /// A message is to be handed over again.
    pub(crate) fn reject(&self, tag: u64) {
        self.ends().rejected.insert(tag);
        self.changed.notify_one();
    }

    /// Tells the broker until `close`, and then what is left; fails with the channel, whose messages come again.
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

async fn send(channel: &Channel, frames: Vec<Frame>) -> lapin::Result<()> {
    for frame in frames {
        match frame {
            Frame::AckUpTo(tag) => channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?,
            Frame::Ack(tag) => channel.basic_ack(tag, BasicAckOptions::default()).await?,
            // From RabbitMQ 4.3 on a message that comes back by basic.nack counts as one that nobody has tried.
            Frame::Reject(tag) => channel.basic_reject(tag, BasicRejectOptions { requeue: true }).await?,
        }
    }
    Ok(())
}

/// What is told of messages, by their delivery tags: those of a channel count up from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// All up to this one ended, which has not been told of yet: the broker closes a channel that names another one.
    AckUpTo(u64),
    Ack(u64),
    Reject(u64),
}

/// Which messages have ended.
#[derive(Debug, Default)]
struct Ends {
    /// Everything up to here has ended and was told.
    told_up_to: u64,
    /// What was told of the rest.
    told: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    rejected: BTreeSet<u64>,
}

impl Ends {
    /// What is to be told now: the ends before which nothing is left, and with `all` the others, too. And whether nothing
    /// is left to be told.
    fn take(&mut self, all: bool) -> (Vec<Frame>, bool) {
        let mut frames: Vec<Frame> = self.rejected.iter().map(|tag| Frame::Reject(*tag)).collect();
        self.told.append(&mut self.rejected);
        let mut last = None;
        while let next = self.told_up_to + 1
            && (self.ended.contains(&next) || self.told.contains(&next))
        {
            if self.ended.remove(&next) {
                last = Some(next);
            }
            self.told.remove(&next);
            self.told_up_to = next;
        }
        frames.extend(last.map(Frame::AckUpTo));
        if all {
            frames.extend(self.ended.iter().map(|tag| Frame::Ack(*tag)));
            self.told.append(&mut self.ended);
        }
        (frames, self.ended.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the broker takes for un-acked, and what it was told of.
    #[derive(Default)]
    struct Broker {
        unacked: BTreeSet<u64>,
        acked: BTreeSet<u64>,
        rejected: BTreeSet<u64>,
        frames: usize,
    }

    impl Broker {
        fn take(&mut self, frames: Vec<Frame>) {
            for frame in frames {
                self.frames += 1;
                match frame {
                    Frame::AckUpTo(tag) => {
                        assert!(self.unacked.contains(&tag), "an unknown tag closes the channel");
                        let rest = self.unacked.split_off(&(tag + 1));
                        self.acked.append(&mut self.unacked);
                        self.unacked = rest;
                    }
                    Frame::Ack(tag) => {
                        assert!(self.unacked.remove(&tag), "an unknown tag closes the channel");
                        self.acked.insert(tag);
                    }
                    Frame::Reject(tag) => {
                        assert!(self.unacked.remove(&tag), "an unknown tag closes the channel");
                        self.rejected.insert(tag);
                    }
                }
            }
        }
    }

    #[test]
    fn what_ends_in_its_order_is_told_at_once() {
        let (mut ends, mut broker) = (Ends::default(), Broker { unacked: (1..=100).collect(), ..Broker::default() });
        ends.ended.extend(1..=60);
        ends.ended.extend(62..=80);
        let (frames, is_all) = ends.take(false);
        assert_eq!((frames.as_slice(), is_all), ([Frame::AckUpTo(60)].as_slice(), false));
        broker.take(frames);
        ends.ended.insert(61);
        let (frames, is_all) = ends.take(false);
        assert_eq!((frames.as_slice(), is_all), ([Frame::AckUpTo(80)].as_slice(), true));
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
            let (mut ends, mut broker) = (Ends::default(), Broker { unacked: (1..=40).collect(), ..Broker::default() });
            let (mut acks, mut rejects) = (BTreeSet::new(), BTreeSet::new());
            for (tag, (step, all)) in order.into_iter().zip(steps).take(ended) {
                if step == 0 {
                    ends.rejected.insert(tag);
                    rejects.insert(tag);
                } else {
                    ends.ended.insert(tag);
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
            prop_assert_eq!(ends.take(true), (Vec::new(), true));
        }
    }
}
