//! Scripts: the faults of a scene, their order, and the moments at which the ledger is read.

use std::{collections::HashMap, time::Duration};

use crate::faults::{Fault, Needs};

/// Simultaneous faults. A step without faults only reads the ledger.
pub(crate) struct Step {
    pub(crate) name: String,
    /// The number of earlier steps with this name. Seed, name and number decide the draws.
    pub(crate) time: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) reads_ledger: bool,
}

/// Steps that share a scene.
pub(crate) struct Script {
    pub(crate) extent: Extent,
    pub(crate) needs: Needs,
    pub(crate) steps: Vec<Step>,
}

/// Durations and repetitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// From one event to the next over the same entrance. There are two entrances.
    pub(crate) pace: Duration,
    /// From a fault to its end; without a length the fault draws its own.
    pub(crate) length: Option<Duration>,
    /// Repetitions of a momentary fault.
    pub(crate) repeats: usize,
    /// Scalings of the dispatchers, up and down.
    pub(crate) scalings: usize,
    /// From the copy of a server's data to the loss of the data.
    pub(crate) newer: Duration,
    /// From the first delivery after a fault to the end of the step.
    pub(crate) afterwards: Duration,
    /// False if the leases of dispatchers that a poison killed end at once.
    pub(crate) leases_last: bool,
}

const WHOLE: Extent = Extent {
    pace: Duration::from_millis(50),
    length: None,
    repeats: 3,
    scalings: 10,
    newer: Duration::from_secs(2),
    afterwards: Duration::from_secs(1),
    leases_last: true,
};

const BRIEF: Extent = Extent {
    // The slow receiver takes 40 events a second: half of them leaves room for backlogs to end.
    pace: Duration::from_millis(100),
    length: Some(Duration::from_millis(300)),
    repeats: 1,
    scalings: 1,
    newer: Duration::from_millis(300),
    afterwards: Duration::ZERO,
    leases_last: false,
};

impl Script {
    /// A scene for each run.
    pub(crate) fn apart(runs: Vec<Vec<Fault>>) -> Vec<Self> {
        let mut times = Times::default();
        let alone = |faults: Vec<Fault>| Self {
            extent: WHOLE,
            needs: Needs::of(&faults),
            steps: vec![Step { reads_ledger: true, ..times.step(&name_of(&faults), faults) }],
        };
        runs.into_iter().map(alone).collect()
    }

    /// A scene for all runs with the same needs; each run is a brief step. A fault of the release has a scene of its
    /// own. Steps with greater losses come last, behind a closing of the ledger. The strict comparison thereby comes
    /// first.
    pub(crate) fn together(mut runs: Vec<Vec<Fault>>) -> Vec<Self> {
        let loss = |faults: &Vec<Fault>| faults.iter().map(|fault| fault.allowed(BRIEF).missing).max();
        runs.sort_by_key(|faults| (Needs::of(faults), loss(faults)));
        let mut times = Times::default();
        let scenes = runs.chunk_by(|faults, next| Needs::of(faults) == Needs::of(next) && !Needs::of(faults).previous);
        scenes
            .map(|runs| {
                let mut steps = Vec::new();
                for runs in runs.chunk_by(|faults, next| loss(faults) == loss(next)) {
                    steps.extend(runs.iter().map(|faults| times.step(&name_of(faults), faults.clone())));
                    steps.push(Step { reads_ledger: true, ..times.step("ledger", Vec::new()) });
                }
                Self { extent: BRIEF, needs: Needs::of(&runs[0]), steps }
            })
            .collect()
    }
}

#[derive(Default)]
struct Times(HashMap<String, usize>);

impl Times {
    fn step(&mut self, name: &str, faults: Vec<Fault>) -> Step {
        let times = self.0.entry(name.to_owned()).or_default();
        *times += 1;
        Step { name: name.to_owned(), time: *times - 1, faults, reads_ledger: false }
    }
}

fn name_of(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join("+")
}
