//! How each fault is brought about, and how it ends.

use std::{fs, path::Path, process::Command, time::Duration};

use fanfare_tests::{instance::Instance, process::Process, proxy::Proxy, receiver::Behaviour, world::ready};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep, timeout},
};

use crate::{
    faults::{Act, Fault, Part, clock_library},
    scene::{SLOW, Scene},
};

/// How often what takes but a moment is done, and how long after each other.
const TIMES: usize = 3;
const BETWEEN: Duration = Duration::from_millis(700);

/// A process may take this long to drain: its own grace and some more.
const DRAINED: Duration = Duration::from_secs(30);

/// How long a rolling restart waits for the new process before it ends the old one, and a server for what comes after
/// it was copied.
const READY: Duration = Duration::from_secs(5);

/// How much newer a server becomes than the copy that replaces it.
const NEWER: Duration = Duration::from_secs(2);

const CLOCKS: [&str; 6] = ["+1h", "-1h", "+90s", "-90s", "+5s", "-5s"];

impl Scene {
    /// Brings a fault about.
    pub(crate) async fn strike(&mut self, fault: &Fault, draw: &mut StdRng) {
        match (fault.act, fault.part) {
            (Act::Kill, Part::Ingests | Part::Dispatchers) => {
                self.processes(fault.part).swap_remove(draw.random_range(0..2)).kill()
            }
            (Act::KillAll, part) => self.processes(part).drain(..).for_each(Process::kill),
            (Act::Roll, part) => self.roll(part).await,
            (Act::RollForward, _) => self.roll_forward().await,
            (Act::RollBack, _) => self.roll_back().await,
            (Act::WrongClock, part) => self.change_clock(part, draw).await,
            (Act::Kill, part) => block_in_place(|| self.server(part).kill()),
            (Act::Restart, part) => block_in_place(|| self.server(part).stop()),
            (Act::LoseData, part) => block_in_place(|| lose_data(self.server(part))),
            (Act::OlderCopy, part) => self.replace_by_older(part).await,
            (Act::MemoryAlarm, _) => self.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]),
            (Act::DiskAlarm, _) => self.rabbitmqctl(&["set_disk_free_limit", "900000GB"]),
            (Act::CloseConnections | Act::Purge | Act::TerminateBackends | Act::Reset, _) => self.repeat(fault).await,
            (Act::ReadOnly, _) => self.database_says("ALTER SYSTEM SET default_transaction_read_only = on").await,
            (Act::HalfOpen, part) => self.way(part).part(),
            (Act::Silence, part) => self.way(part).silence(),
            (Act::Delay, part) => self.way(part).delay(Duration::from_millis(draw.random_range(50..400))),
            (Act::Answer(behaviour), _) => self.answer(behaviour, behaviour),
        }
    }

    /// Ends it.
    pub(crate) async fn mend(&mut self, fault: &Fault) {
        match (fault.act, fault.part) {
            (Act::Kill | Act::Restart | Act::LoseData | Act::OlderCopy, Part::Broker | Part::Database) => {
                block_in_place(|| self.server(fault.part).start());
            }
            (Act::Kill | Act::KillAll, _) => self.fill(),
            (Act::WrongClock, part) => {
                let wrong = self.processes(part).pop().expect("a process");
                self.fill();
                self.end(wrong).await;
            }
            (Act::MemoryAlarm, _) => self.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]),
            (Act::DiskAlarm, _) => self.rabbitmqctl(&["set_disk_free_limit", "50MB"]),
            (Act::ReadOnly, _) => self.database_says("ALTER SYSTEM RESET default_transaction_read_only").await,
            (Act::HalfOpen, part) => self.way(part).join(),
            (Act::Delay, part) => self.way(part).delay(Duration::ZERO),
            (Act::Answer(_), _) => self.answer(Behaviour::OK, Behaviour::Answer(200, SLOW)),
            _ => {}
        }
    }

    /// What takes but a moment, several times.
    async fn repeat(&self, fault: &Fault) {
        for _ in 0..TIMES {
            match fault.act {
                Act::CloseConnections => self.rabbitmqctl(&["close_all_connections", "chaos"]),
                Act::Purge => self.purge().await,
                Act::TerminateBackends => self.terminate_backends().await,
                _ => self.way(fault.part).reset(),
            }
            sleep(BETWEEN).await;
        }
    }

    async fn purge(&self) {
        let broker = self.world.broker().await;
        for queue in ["events", "deliveries", "delay.1s", "delay.5s", "delay.30s"] {
            broker.purge(queue).await.expect("a purge");
        }
    }

    async fn terminate_backends(&self) {
        let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.world.count(others).await;
    }

    /// A setting of the server, which must not apply to this session.
    async fn database_says(&self, statement: &str) {
        let client = self.world.database().await;
        for statement in ["SET default_transaction_read_only = off", statement, "SELECT pg_reload_conf()"] {
            client.batch_execute(statement).await.expect("the database");
        }
    }

    /// Starts a new process for each, and ends the old one.
    async fn roll(&mut self, part: Part) {
        for _ in 0..2 {
            let new = self.start(service(part), &[]);
            self.replace(part, 0, new).await;
        }
    }

    async fn change_clock(&mut self, part: Part, draw: &mut StdRng) {
        let clock = *CLOCKS.choose(draw).expect("a clock");
        let library = clock_library().expect("a library").to_string_lossy().into_owned();
        self.notes.push(format!("a clock {clock}"));
        let variables = [("LD_PRELOAD", library.as_str()), ("FAKETIME", clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let wrong = self.start(service(part), &variables);
        let log = wrong.logged("serving health and metrics").await;
        let logged: Timestamp = log["timestamp"].as_str().and_then(|text| text.parse().ok()).expect("a time");
        let error = Timestamp::now().duration_since(logged).abs();
        assert!(error > SignedDuration::from_secs(3), "the clock is not wrong: {error:?}");
        let index = draw.random_range(0..2);
        self.replace(part, index, wrong).await;
    }

    /// Ends a process once another one, which becomes the last, is ready, or should be.
    async fn replace(&mut self, part: Part, index: usize, new: Process) {
        let _ = timeout(READY, ready(&new)).await;
        let old = self.processes(part).remove(index);
        self.processes(part).push(new);
        self.spread();
        self.end(old).await;
    }

    /// SIGTERM, after which it must drain.
    pub(crate) async fn end(&mut self, process: Process) {
        let (id, started) = (process.id(), Instant::now());
        process.terminate();
        match timeout(DRAINED, process.ended()).await {
            Ok(0) => {}
            Ok(code) => {
                self.undrained.push(format!("process {id} ended with {code}, {:?} after SIGTERM", started.elapsed()))
            }
            Err(_) => self.undrained.push(format!("process {id} did not end within {DRAINED:?} of SIGTERM")),
        }
    }

    /// The server goes on for a while after the copy was made, and is then replaced by it.
    async fn replace_by_older(&self, part: Part) {
        let server = self.server(part);
        let data = server.data();
        let older = data.with_extension("older");
        block_in_place(|| {
            server.stop();
            copy(&data, &older);
            server.start();
        });
        // Beside another fault nothing may flow.
        let _ = timeout(READY, self.again()).await;
        sleep(NEWER).await;
        block_in_place(|| {
            lose_data(server);
            fs::rename(&older, &data).expect("the older copy");
        });
    }

    fn answer(&self, quick: Behaviour, slow: Behaviour) {
        self.world.receiver.script("quick", &[quick]);
        self.world.receiver.script("slow", &[slow]);
    }

    fn rabbitmqctl(&self, arguments: &[&str]) {
        block_in_place(|| self.broker.rabbitmqctl(arguments));
    }

    fn processes(&mut self, part: Part) -> &mut Vec<Process> {
        if part == Part::Ingests { &mut self.ingests } else { &mut self.dispatchers }
    }

    fn server(&self, part: Part) -> &Instance {
        if part == Part::Broker { &self.broker } else { &self.database }
    }

    fn way(&self, part: Part) -> &Proxy {
        if part == Part::ToBroker { &self.to_broker } else { &self.to_database }
    }
}

fn service(part: Part) -> &'static str {
    if part == Part::Ingests { "ingest" } else { "dispatcher" }
}

fn lose_data(server: &Instance) {
    server.kill();
    fs::remove_dir_all(server.data()).expect("its data go");
}

/// With owners and modes, which both servers insist on.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp {} {}", from.display(), to.display());
}
