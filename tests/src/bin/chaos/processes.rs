//! Faults of processes: replacement, scaling, stop and continuation, a wrong clock.

use std::time::Duration;

use fanfare_tests::world::process::{Process, signal};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, timeout};

use crate::{
    faults::{Ending, Part, clock_library},
    injections::READY,
    scene::{PROCESSES, Scene},
};

/// Longest permitted drain of a process: the grace of the process, and a margin.
const DRAINED: Duration = Duration::from_secs(30);

/// Dispatchers before each scaling down to a single dispatcher.
const SCALED: usize = 4;

/// Number of dispatchers ended by each scaling.
pub(crate) const ENDED: usize = SCALED - 1;

const CLOCKS: [&str; 10] = ["+40d", "-40d", "+3d", "-3d", "+1h", "-1h", "+90s", "-90s", "+5s", "-5s"];

impl Scene {
    /// Replaces each process by a new process.
    pub(crate) async fn roll(&mut self, part: Part) {
        for _ in 0..PROCESSES {
            let new = self.start(service(part), &[]);
            self.replace(part, 0, new).await;
        }
    }

    /// Scales from four dispatchers to a single dispatcher and back, repeatedly.
    pub(crate) async fn scale(&mut self, ending: Ending) {
        for _ in 0..self.extent.scalings {
            while self.dispatchers.len() < SCALED {
                let dispatcher = self.start("dispatcher", &[]);
                self.dispatchers.push(dispatcher);
            }
            let _ = timeout(READY, join_all(self.dispatchers.iter().map(Process::ready))).await;
            let _ = timeout(READY, self.again()).await;
            let ended = self.dispatchers.drain(..ENDED).collect();
            match ending {
                Ending::Kill => Vec::into_iter(ended).for_each(Process::kill),
                Ending::Terminate => self.end(ended).await,
            }
            // Beside another fault no dispatcher may be able to drain: each would take all its grace.
            if !self.failures.is_empty() {
                break;
            }
        }
    }

    /// Returns to the usual number of dispatchers.
    pub(crate) async fn scale_back(&mut self) {
        self.fill();
        let more = self.dispatchers.split_off(PROCESSES);
        self.end(more).await;
    }

    /// Stops a drawn process by SIGSTOP.
    pub(crate) fn stop_process(&mut self, part: Part, draw: &mut StdRng) {
        let index = draw.random_range(0..PROCESSES);
        let process = self.processes(part)[index].id();
        signal("STOP", process);
        self.stopped.push(process);
    }

    /// Continues the stopped processes by SIGCONT.
    pub(crate) fn resume_processes(&mut self) {
        self.stopped.drain(..).for_each(|process| signal("CONT", process));
    }

    pub(crate) async fn change_clock(&mut self, part: Part, draw: &mut StdRng) {
        let clock = *CLOCKS.choose(draw).expect("a clock");
        let library = clock_library().expect("a library").to_string_lossy().into_owned();
        self.notes.push(format!("a clock {clock}"));
        let variables = [("LD_PRELOAD", library.as_str()), ("FAKETIME", clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let wrong = self.start(service(part), &variables);
        let log = wrong.logged("serving health and metrics").await;
        let logged: Timestamp = log["timestamp"].as_str().and_then(|text| text.parse().ok()).expect("a time");
        let error = Timestamp::now().duration_since(logged).abs();
        assert!(error > SignedDuration::from_secs(3), "the clock is not wrong: {error:?}");
        let index = draw.random_range(0..PROCESSES);
        self.replace(part, index, wrong).await;
    }

    /// Replaces the dispatchers by dispatchers that log all, and whose logs nothing reads.
    pub(crate) async fn stop_logs(&mut self) {
        for _ in 0..PROCESSES {
            let new = self.start("dispatcher", &[("RUST_LOG", "trace")]);
            self.replace(Part::Dispatchers, 0, new).await;
        }
        self.dispatchers.iter().for_each(|dispatcher| dispatcher.read_log(false));
    }

    /// Ends a process when the new process is ready or late. The new process becomes the last.
    pub(crate) async fn replace(&mut self, part: Part, index: usize, new: Process) {
        let _ = timeout(READY, new.ready()).await;
        let old = self.processes(part).remove(index);
        self.processes(part).push(new);
        self.spread();
        self.end(vec![old]).await;
    }

    /// Sends SIGTERM to `processes`. Each must drain and exit.
    pub(crate) async fn end(&mut self, processes: Vec<Process>) {
        processes.iter().for_each(Process::terminate);
        let started = Instant::now();
        for process in processes {
            let id = process.id();
            match timeout(DRAINED, process.ended()).await {
                Ok(0) => {}
                Ok(code) => {
                    self.failures.push(format!("process {id} ended with {code}, {:?} after SIGTERM", started.elapsed()))
                }
                Err(_) => self.failures.push(format!("process {id} did not end within {DRAINED:?} of SIGTERM")),
            }
        }
    }
}

fn service(part: Part) -> &'static str {
    if part == Part::Ingests { "ingest" } else { "dispatcher" }
}
