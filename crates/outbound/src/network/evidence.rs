//! Evidence that our own name servers, or our own egress proxy, work: then a failure is the receiver's.

use std::{
    collections::{HashMap, VecDeque},
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, timeout};

/// Number of targets: a single target may fail by itself.
const KEPT: usize = 4;

/// Longest question.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);

/// Validity of an answer: many attempts that fail at once ask once.
const HOLDS: Duration = Duration::from_secs(1);

/// The part of ours that may be at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// Descriptors or memory of this machine, or a proxy that is away or refuses us: certain.
    Certain,
    /// The name servers, unless they answer other questions.
    Names,
    /// The egress proxy, unless it reaches other targets than this target.
    Proxy(Option<String>),
    /// Routes or ports of this machine, unless other addresses than this address are reached.
    Route(String),
}

/// Targets reached lately, and open questions.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Targets reached lately, the newest last.
    reached: Mutex<VecDeque<String>>,
    /// Number of open questions by target.
    open: Mutex<HashMap<String, usize>>,
    /// The last answer.
    answer: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

/// An open question until dropped.
pub(crate) struct Open {
    evidence: Arc<Evidence>,
    target: String,
}

impl Evidence {
    /// Notes a question for a target.
    pub(crate) fn begin(self: &Arc<Self>, target: &str) -> Open {
        *lock(&self.open).entry(target.to_owned()).or_default() += 1;
        Open { evidence: Arc::clone(self), target: target.to_owned() }
    }

    /// True while a question for the target is open; for any target without one.
    pub(crate) fn is_open(&self, target: Option<&str>) -> bool {
        let open = lock(&self.open);
        target.map_or(!open.is_empty(), |target| open.contains_key(target))
    }

    /// Notes a reached target.
    pub(crate) fn note(&self, target: &str) {
        // Ours works again since the last answer.
        if let Ok(mut answer) = self.answer.try_lock()
            && answer.is_some_and(|(_, is_reached)| !is_reached)
        {
            *answer = None;
        }
        let mut reached = lock(&self.reached);
        if reached.back().is_some_and(|newest| newest == target) {
            return;
        }
        reached.retain(|known| known != target);
        reached.push_back(target.to_owned());
        while reached.len() > KEPT {
            reached.pop_front();
        }
    }

    /// Asks for the targets reached lately, all at once, without `except`, and for `always`. True if one target is
    /// reached again: ours works. `None` without a target: nothing is known.
    pub(crate) async fn works<F: Future<Output = bool>>(
        &self,
        always: Option<&str>,
        except: Option<&str>,
        ask: impl Fn(String) -> F,
    ) -> Option<bool> {
        let mut answer = self.answer.lock().await;
        if let Some((at, works)) = *answer
            && at.elapsed() < HOLDS
        {
            return Some(works);
        }
        let works = self.any(always, except, QUESTION_LIMIT, ask).await?;
        *answer = Some((Instant::now(), works));
        Some(works)
    }

    /// Like [`works`](Self::works), but always asks, and waits for `limit`.
    pub(crate) async fn any<F: Future<Output = bool>>(
        &self,
        always: Option<&str>,
        except: Option<&str>,
        limit: Duration,
        ask: impl Fn(String) -> F,
    ) -> Option<bool> {
        let reached = lock(&self.reached).iter().filter(|target| Some(target.as_str()) != except).cloned().collect();
        let targets: Vec<String> = [reached, always.map(str::to_owned).into_iter().collect::<Vec<_>>()].concat();
        if targets.is_empty() {
            return None;
        }
        let asked: FuturesUnordered<_> = targets.into_iter().map(|target| timeout(limit, ask(target))).collect();
        Some(asked.any(|reached| ready(reached.unwrap_or(false))).await)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = lock(&self.evidence.open);
        if let Some(count) = open.get_mut(&self.target) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.target);
            }
        }
    }
}

/// Locks. No holder of a lock can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_target_that_is_reached_again_is_enough() {
        let evidence = Evidence::default();
        assert_eq!(evidence.works(None, None, |_| ready(true)).await, None, "nothing was reached before");
        assert_eq!(evidence.works(Some("z"), None, |target| ready(target == "z")).await, Some(true));
        tokio::time::advance(HOLDS).await;
        for target in ["a", "b", "c", "d", "e", "e", "b"] {
            evidence.note(target);
        }
        let asked = AtomicUsize::new(0);
        let ask = |target: String| {
            asked.fetch_add(1, Ordering::AcqRel);
            ready(target == "c")
        };
        for _ in 0..2 {
            assert_eq!(evidence.works(Some("z"), Some("d"), ask).await, Some(true));
        }
        assert_eq!(asked.load(Ordering::Acquire), KEPT, "three and the last; the answer holds for a second");
        tokio::time::advance(HOLDS).await;
        let oldest = evidence.works(None, None, |target| ready(target == "a")).await;
        assert_eq!(oldest, Some(false), "the oldest is forgotten");
        tokio::time::advance(HOLDS).await;
        assert_eq!(evidence.works(None, None, |_| std::future::pending()).await, Some(false), "silence");
    }

    #[test]
    fn a_question_is_open_until_its_drop() {
        let evidence = Arc::<Evidence>::default();
        let questions = [evidence.begin("a"), evidence.begin("a")];
        assert!(evidence.is_open(Some("a")) && evidence.is_open(None) && !evidence.is_open(Some("b")));
        let [first, second] = questions;
        drop(first);
        assert!(evidence.is_open(Some("a")));
        drop(second);
        assert!(!evidence.is_open(Some("a")) && !evidence.is_open(None));
    }
}
