//! What may be written in one commit.

use std::{collections::HashSet, hash::Hash, time::Duration};

use tokio::{sync::mpsc, time::sleep};

/// Items that are taken in at once, and so of one commit, at the most.
const MAX_ITEMS: usize = 256;

/// Bytes of one commit at the most: what carries them has limits of its own, far above.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// From so many items at once on, more are coming; and with so many, a commit is worth its while.
const BUSY: usize = 8;
const ENOUGH: usize = 64;

/// How long a small batch waits for more, where more are coming.
const LINGER: Duration = Duration::from_millis(2);

/// Receives what is to be written next; nothing once nothing more comes in. Each commit costs the database as much as some
/// dozens of rows: where several processes share the work, none of them would ever have many at once.
pub(crate) async fn gather<T>(channel: &mut mpsc::Receiver<T>, waiting: &mut Vec<T>) -> usize {
    let count = channel.recv_many(waiting, MAX_ITEMS).await;
    if (BUSY..ENOUGH).contains(&count) {
        sleep(LINGER).await;
        while waiting.len() < MAX_ITEMS
            && let Ok(item) = channel.try_recv()
        {
            waiting.push(item);
        }
    }
    waiting.len()
}

/// What the rules ask of an item.
pub(crate) struct Weight<K> {
    /// The row that it writes. Two of one row must not stand in the same commit.
    pub(crate) key: K,
    /// How large it is.
    pub(crate) bytes: usize,
    /// Whether processes have died with it, so that nothing else may share its fate.
    pub(crate) is_alone: bool,
}

/// Takes the next batch, sorted by key, out of what is waiting; replicas that write the same rows in
/// different orders would deadlock. Never empty where something waits.
pub(crate) fn next<T, K: Copy + Ord + Hash>(waiting: &mut Vec<T>, weigh: impl Fn(&T) -> Weight<K>) -> Vec<T> {
    let mut keys = HashSet::new();
    let mut bytes = 0;
    let mut is_full = false;
    let (mut batch, rest): (Vec<T>, Vec<T>) = waiting.drain(..).partition(|item| {
        let weight = weigh(item);
        let fits = keys.is_empty() || !weight.is_alone && bytes + weight.bytes <= MAX_BYTES;
        let is_taken = !is_full && fits && keys.insert(weight.key);
        if is_taken {
            bytes += weight.bytes;
            is_full = weight.is_alone;
        }
        is_taken
    });
    *waiting = rest;
    batch.sort_unstable_by_key(|item| weigh(item).key);
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (u32, usize, bool);

    fn weigh(&(key, bytes, is_alone): &Item) -> Weight<u32> {
        Weight { key, bytes, is_alone }
    }

    fn batches(mut waiting: Vec<Item>) -> Vec<Vec<u32>> {
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            batches.push(next(&mut waiting, weigh).into_iter().map(|(key, ..)| key).collect());
        }
        batches
    }

    #[tokio::test]
    async fn few_go_at_once_and_some_wait_for_more() {
        for (count, gathered) in [(BUSY - 1, BUSY - 1), (BUSY, BUSY + 5), (ENOUGH, ENOUGH)] {
            let (sender, mut channel) = mpsc::channel(MAX_ITEMS);
            for item in 0..count {
                sender.send(item).await.expect("room");
            }
            // It runs as soon as this test waits for anything.
            tokio::spawn(async move {
                for item in 0..5 {
                    sender.send(item).await.expect("room");
                }
            });
            assert_eq!(gather(&mut channel, &mut Vec::new()).await, gathered, "{count}");
        }
    }

    #[test]
    fn each_key_once_and_sorted() {
        assert_eq!(batches(vec![(3, 1, false), (1, 1, false), (3, 1, false), (2, 1, false)]), [vec![1, 2, 3], vec![3]]);
    }

    #[test]
    fn not_too_many_bytes_and_never_nothing() {
        assert_eq!(
            batches(vec![(1, MAX_BYTES * 2, false), (2, MAX_BYTES, false), (3, 1, false)]),
            [vec![1], vec![2], vec![3]]
        );
    }

    #[test]
    fn what_is_alone_stays_alone() {
        assert_eq!(
            batches(vec![(1, 1, false), (2, 1, true), (3, 1, false), (4, 1, true)]),
            [vec![1, 3], vec![2], vec![4]]
        );
    }
}
