//! Batches: the bounds of a commit.

use std::{collections::HashSet, hash::Hash, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::metric;

/// Maximum of items received at once, and thus in a commit.
const MAX_ITEMS: usize = 256;

/// Maximum of bytes in a commit, far below the limits of the database protocol.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Number of items from which on more items are expected soon, and number of items that are enough for a commit.
const BUSY: usize = 8;
const ENOUGH: usize = 64;

/// Wait of a small batch, if more items are expected soon.
const LINGER: Duration = Duration::from_millis(2);

/// Receives the next items. Returns the number of waiting items, 0 after the channel has closed.
pub(crate) async fn gather<T>(channel: &mut mpsc::Receiver<T>, waiting: &mut Vec<T>) -> usize {
    let count = channel.recv_many(waiting, MAX_ITEMS).await;
    // A commit costs the database as much as some dozens of rows. With several processes at work, no process would ever
    // have many items at once.
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

/// Measures a batch statement of a stage, with the commit and all tries.
pub(crate) async fn timed<T>(stage: &'static str, rows: usize, statement: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = statement.await;
    metrics::histogram!(metric::COMMIT_SECONDS, "stage" => stage).record(began.elapsed());
    // Exact: a batch has at most 256 rows.
    metrics::histogram!(metric::COMMIT_ROWS, "stage" => stage).record(rows as f64);
    done
}

/// Properties of an item for the bounds of a commit.
pub(crate) struct Weight<K> {
    /// Key of the item's row. A commit holds a key once.
    pub(crate) key: K,
    pub(crate) bytes: usize,
    /// True if processes have died with the item: no other item may share the commit.
    pub(crate) is_quarantined: bool,
    /// True if the item must not be written before an earlier item of which the same is true.
    pub(crate) is_ordered: bool,
}

/// Takes the next batch out of `waiting`, sorted by key: replicas that write the same rows in different orders would
/// deadlock. Never empty while an item waits.
pub(crate) fn next<T, K: Copy + Ord + Hash>(waiting: &mut Vec<T>, weigh: impl Fn(&T) -> Weight<K>) -> Vec<T> {
    let mut keys = HashSet::new();
    let mut bytes = 0;
    let (mut is_full, mut has_left_ordered) = (false, false);
    let (mut batch, rest): (Vec<T>, Vec<T>) = waiting.drain(..).partition(|item| {
        let weight = weigh(item);
        let fits = keys.is_empty() || !weight.is_quarantined && bytes + weight.bytes <= MAX_BYTES;
        let is_next = !(weight.is_ordered && has_left_ordered);
        let is_taken = !is_full && fits && is_next && keys.insert(weight.key);
        if is_taken {
            bytes += weight.bytes;
            is_full = weight.is_quarantined;
        } else {
            has_left_ordered |= weight.is_ordered;
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

    /// Least key of an ordered item.
    const ORDERED: u32 = 100;

    fn weigh(&(key, bytes, is_quarantined): &Item) -> Weight<u32> {
        Weight { key, bytes, is_quarantined, is_ordered: key >= ORDERED }
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
            // The task runs at the next await of this test.
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
    fn a_batch_is_bounded_in_bytes_and_never_empty() {
        assert_eq!(
            batches(vec![(1, MAX_BYTES * 2, false), (2, MAX_BYTES, false), (3, 1, false)]),
            [vec![1], vec![2], vec![3]]
        );
    }

    #[test]
    fn a_quarantined_item_gets_a_batch_of_its_own() {
        assert_eq!(
            batches(vec![(1, 1, false), (2, 1, true), (3, 1, false), (4, 1, true)]),
            [vec![1, 3], vec![2], vec![4]]
        );
    }

    #[test]
    fn no_ordered_item_passes_an_earlier_one() {
        assert_eq!(
            batches(vec![(1, MAX_BYTES, false), (101, 1, false), (100, 0, false), (2, 0, false), (101, 0, false)]),
            [vec![1, 2], vec![100, 101], vec![101]]
        );
    }
}
