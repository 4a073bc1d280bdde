//! The gate to our own egress: shut while no connection can be made for a reason of ours.

use std::time::Duration;

/// Wait before a probe. Each failed probe doubles the wait.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Longest wait between two probes: the end of an outage is found soon.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

/// Time in which a reserved probe must begin. A reservation that is not used holds up the next probe for this time.
const RESERVED: Duration = Duration::from_secs(1);

/// Time after which a second probe may begin: a slow endpoint must not hold up all others.
const PROBING: Duration = Duration::from_secs(5);

/// Time without a failure after which the gate opens by itself: no delivery may be left that could be a probe.
const LAPSE: Duration = Duration::from_secs(60);

/// Shuts at the first failure of our own. While shut, a single attempt at a time passes: the probe. A result opens the
/// gate.
///
/// Moments are durations since any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct EgressGate {
    shut: Option<Shut>,
}

#[derive(Debug, Clone)]
struct Shut {
    wait: Duration,
    /// The last failure.
    failed: Duration,
    /// No probe is reserved before.
    next: Duration,
    /// End of the time of the running probe.
    probing_until: Option<Duration>,
}

/// Permission of the gate for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The gate is open.
    Open,
    /// The attempt is the probe.
    Probe,
}

impl EgressGate {
    /// Permits an attempt to be planned. While the gate is shut, reserves the probe.
    ///
    /// # Errors
    /// The moment of the next question.
    pub fn reserve(&mut self, now: Duration) -> Result<Passage, Duration> {
        let Some(shut) = &mut self.shut else { return Ok(Passage::Open) };
        if let Some(until) = shut.probing_until.filter(|&until| now < until) {
            return Err(until.min(now + FIRST_PROBE));
        }
        if now < shut.next {
            return Err(shut.next);
        }
        shut.next = now + RESERVED;
        Ok(Passage::Probe)
    }

    /// Permits an attempt to begin. While the gate is shut, a single attempt begins: the probe.
    pub fn begin(&mut self, now: Duration) -> Option<Passage> {
        let Some(shut) = &mut self.shut else { return Some(Passage::Open) };
        if shut.probing_until.is_some_and(|until| now < until) {
            return None;
        }
        shut.probing_until = Some(now + PROBING);
        Some(Passage::Probe)
    }

    /// Records an attempt that failed for a reason of ours; returns true if the gate has just shut.
    pub fn record_failure(&mut self, passage: Passage, now: Duration) -> bool {
        match (&mut self.shut, passage) {
            // Attempts in flight since before give no new information.
            (Some(_), Passage::Open) => false,
            (Some(shut), Passage::Probe) => {
                shut.wait = (shut.wait * 2).min(LONGEST_PROBE);
                shut.failed = now;
                (shut.next, shut.probing_until) = (now + shut.wait, None);
                false
            }
            (None, _) => {
                self.shut = Some(Shut { wait: FIRST_PROBE, failed: now, next: now, probing_until: None });
                true
            }
        }
    }

    /// Records a probe without a result: the next probe waits.
    pub fn record_nothing(&mut self, passage: Passage, now: Duration) {
        if let (Some(shut), Passage::Probe) = (&mut self.shut, passage) {
            (shut.next, shut.probing_until) = (now + FIRST_PROBE, None);
        }
    }

    /// Records an attempt that reached the network; returns true if the gate has just opened. Attempts in flight since
    /// before the gate shut give no new information.
    pub fn record_success(&mut self, passage: Passage) -> bool {
        passage == Passage::Probe && self.shut.take().is_some()
    }

    /// Opens the gate a minute after the last failure. Returns true if the gate has just opened.
    pub fn lapse(&mut self, now: Duration) -> bool {
        self.shut.take_if(|shut| now >= shut.failed + LAPSE).is_some()
    }

    /// True while the gate is shut.
    pub fn is_shut(&self) -> bool {
        self.shut.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn one_probe_at_a_time_finds_the_end() {
        let mut gate = EgressGate::default();
        assert_eq!((gate.reserve(at(0)), gate.begin(at(0))), (Ok(Passage::Open), Some(Passage::Open)));
        assert!(gate.record_failure(Passage::Open, at(1)) && !gate.record_failure(Passage::Open, at(1)));
        // The first probe may begin at once; nothing else may.
        assert_eq!(gate.reserve(at(1)), Ok(Passage::Probe));
        assert_eq!(gate.reserve(at(1)), Err(at(2)), "reserved");
        assert_eq!(gate.begin(at(2)), Some(Passage::Probe));
        assert_eq!((gate.begin(at(2)), gate.reserve(at(3))), (None, Err(at(4))));
        assert!(!gate.record_failure(Passage::Probe, at(4)));
        assert_eq!(gate.reserve(at(4)), Err(at(6)));
        assert_eq!((gate.reserve(at(6)), gate.begin(at(6))), (Ok(Passage::Probe), Some(Passage::Probe)));
        assert!(!gate.record_success(Passage::Open) && gate.is_shut(), "begun before the gate shut");
        assert!(gate.record_success(Passage::Probe) && !gate.record_success(Passage::Probe) && !gate.is_shut());
        assert_eq!(gate.begin(at(7)), Some(Passage::Open));
    }

    #[test]
    fn a_gate_without_a_probe_opens_by_itself() {
        let mut gate = EgressGate::default();
        gate.record_failure(Passage::Open, at(0));
        assert_eq!(gate.begin(at(30)), Some(Passage::Probe));
        gate.record_failure(Passage::Probe, at(31));
        assert!(!gate.lapse(at(90)) && gate.lapse(at(91)) && !gate.lapse(at(91)) && !gate.is_shut());
    }

    #[test]
    fn a_lost_probe_holds_the_gate_for_a_while_only() {
        let mut gate = EgressGate::default();
        gate.record_failure(Passage::Open, at(0));
        assert_eq!(gate.begin(at(0)), Some(Passage::Probe));
        assert_eq!((gate.begin(at(4)), gate.begin(at(5))), (None, Some(Passage::Probe)));
        gate.record_nothing(Passage::Probe, at(6));
        assert_eq!((gate.reserve(at(6)), gate.reserve(at(7))), (Err(at(7)), Ok(Passage::Probe)));
    }

    proptest! {
        /// A shut gate has at most one young probe in flight, and asks again within 5 s.
        #[test]
        fn a_shut_gate_never_stays_shut_without_a_probe(steps in proptest::collection::vec((0u64..20, 0u8..5), 1..60)) {
            let (mut gate, mut now, mut probes) = (EgressGate::default(), 0, Vec::new());
            for (later, step) in steps {
                now += later;
                probes.retain(|began| now < began + PROBING.as_secs());
                match step {
                    0 => { gate.record_failure(Passage::Open, at(now)); }
                    1 => if let Some(Passage::Probe) = gate.begin(at(now)) { probes.push(now); },
                    2 => if probes.pop().is_some() { gate.record_failure(Passage::Probe, at(now)); },
                    3 => if probes.pop().is_some() { gate.record_success(Passage::Probe); },
                    _ => { let _ = gate.reserve(at(now)); }
                }
                prop_assert!(probes.len() <= 1);
                prop_assert!(gate.clone().reserve(at(now) + PROBING.max(LONGEST_PROBE)).is_ok());
            }
        }
    }
}
