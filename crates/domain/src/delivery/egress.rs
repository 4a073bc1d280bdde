//! The gate to our own egress: shut while no connection can be made for a reason of ours.

use std::time::Duration;

/// Wait before a probe. Each failed probe doubles the wait.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Longest wait between two probes: the end of an outage is found soon.
const LONGEST_PROBE: Duration = Duration::from_secs(5);

/// Time in which a reserved probe must begin.
const RESERVED: Duration = Duration::from_secs(5);

/// Time after which a probe without a result is given up: longer than the longest attempt.
const PROBING: Duration = Duration::from_secs(90);

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
                (shut.next, shut.probing_until) = (now + shut.wait, None);
                false
            }
            (None, _) => {
                self.shut = Some(Shut { wait: FIRST_PROBE, next: now, probing_until: None });
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

    /// Records an attempt that reached the network; returns true if the gate was shut.
    pub fn record_success(&mut self) -> bool {
        self.shut.take().is_some()
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
        assert_eq!(gate.reserve(at(1)), Err(at(6)), "reserved");
        assert_eq!(gate.begin(at(2)), Some(Passage::Probe));
        assert_eq!((gate.begin(at(2)), gate.reserve(at(7))), (None, Err(at(8))));
        assert!(!gate.record_failure(Passage::Probe, at(8)));
        assert_eq!(gate.reserve(at(8)), Err(at(10)));
        assert_eq!((gate.reserve(at(10)), gate.begin(at(10))), (Ok(Passage::Probe), Some(Passage::Probe)));
        assert!(gate.record_success() && !gate.record_success() && !gate.is_shut());
        assert_eq!(gate.begin(at(11)), Some(Passage::Open));
    }

    #[test]
    fn a_lost_probe_holds_the_gate_for_a_while_only() {
        let mut gate = EgressGate::default();
        gate.record_failure(Passage::Open, at(0));
        assert_eq!(gate.begin(at(0)), Some(Passage::Probe));
        assert_eq!((gate.begin(at(89)), gate.begin(at(90))), (None, Some(Passage::Probe)));
        gate.record_nothing(Passage::Probe, at(91));
        assert_eq!((gate.reserve(at(91)), gate.reserve(at(92))), (Err(at(92)), Ok(Passage::Probe)));
    }

    proptest! {
        /// Whatever happens, a shut gate has at most one probe in flight, and asks again within 90 s.
        #[test]
        fn a_shut_gate_never_stays_shut_without_a_probe(steps in proptest::collection::vec((0u64..120, 0u8..4), 1..60)) {
            let (mut gate, mut now, mut probes) = (EgressGate::default(), 0, Vec::new());
            for (later, step) in steps {
                now += later;
                probes.retain(|began| now < began + 90);
                match step {
                    0 => { gate.record_failure(Passage::Open, at(now)); }
                    1 => if let Some(Passage::Probe) = gate.begin(at(now)) { probes.push(now); },
                    2 => if probes.pop().is_some() { gate.record_failure(Passage::Probe, at(now)); },
                    _ => if probes.pop().is_some() { gate.record_success(); },
                }
                prop_assert!(probes.len() <= 1);
                prop_assert!(gate.clone().reserve(at(now + 90)).is_ok());
            }
        }
    }
}
