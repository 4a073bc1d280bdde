//! What may be written in one commit.

use std::{collections::HashSet, hash::Hash};

/// Items that are taken in at once, and so of one commit, at the most.
pub(crate) const MAX_ITEMS: usize = 256;

/// Bytes of one commit at the most: what carries them has limits of its own, far above.
const MAX_BYTES: usize = 8 * 1024 * 1024;

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
