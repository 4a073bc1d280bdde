//! The beginning and the end of each fault.

use std::{fs, time::Duration};

use fanfare_tests::{
    receiver::Behaviour,
    servers::{egress_proxy::Serves, instance::Instance, name_server::Answers, proxy::Proxy},
    world::process::Process,
};
use rand::{RngExt, rngs::StdRng};
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use crate::{
    disk,
    faults::{Act, Fault, Full, Part, clock_library},
    harm::HANGING,
    scene::{PROCESSES, SLOW, Scene},
};

/// From a repetition of a momentary fault to the next.
const BETWEEN: Duration = Duration::from_millis(700);

/// Delay of [`Act::Late`]: a publish and its confirm together are later than any caller waits.
const LATE: Duration = Duration::from_secs(3);

/// The longest wait for a condition that another fault can prevent: a process is ready, deliveries flow.
pub(crate) const READY: Duration = Duration::from_secs(5);

impl Scene {
    /// Begins a fault.
    pub(crate) async fn inject(&mut self, fault: &Fault, draw: &mut StdRng) {
        match (fault.act, fault.part) {
            (Act::Kill, Part::Ingests | Part::Dispatchers) => {
                self.processes(fault.part).swap_remove(draw.random_range(0..PROCESSES)).kill()
            }
            (Act::KillAll, part) => self.processes(part).drain(..).for_each(Process::kill),
            (Act::Stop, Part::Ingests | Part::Dispatchers) => self.stop_process(fault.part, draw),
            (Act::Roll, part) => self.roll(part).await,
            (Act::Scale(ending), _) => self.scale(ending).await,
            (Act::WrongClock, part) => self.change_clock(part, draw).await,
            (Act::StopLog, _) => self.stop_logs().await,
            (Act::Kill, part) => block_in_place(|| self.server(part).kill()),
            (Act::Stop, part) => block_in_place(|| self.server(part).pause()),
            (Act::Restart, part) => block_in_place(|| self.server(part).stop()),
            (Act::EarlierClock, part) => block_in_place(|| restart_earlier(self.server(part))),
            (Act::FillDisk(what), part) => self.fill_disk(part, what).await,
            (Act::LoseData, part) => block_in_place(|| lose_data(self.server(part))),
            (Act::OlderCopy, part) => self.replace_by_older(part).await,
            (Act::LoseNode, _) => self.lose_node(draw).await,
            (Act::RollNodes, _) => self.roll_nodes(draw).await,
            (Act::LoseMajority, _) => self.lose_majority(draw).await,
            (Act::MemoryAlarm, _) => self.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]),
            (Act::DiskAlarm, _) => self.rabbitmqctl(&["set_disk_free_limit", "900000GB"]),
            (Act::CloseConnections | Act::Purge | Act::TerminateBackends | Act::Reset, _) => self.repeat(fault).await,
            (Act::ReadOnly, _) => self.database_says("ALTER SYSTEM SET default_transaction_read_only = on").await,
            (Act::HalfOpen, part) => self.ways(part).iter().for_each(Proxy::partition),
            (Act::Silence, part) => self.ways(part).iter().for_each(Proxy::silence),
            (Act::Delay, part) => self.delay(part, Duration::from_millis(draw.random_range(50..400))),
            (Act::Late, part) => self.delay(part, LATE),
            (Act::Resolve(answers), _) => self.egress().name_server.answer(answers),
            (Act::Tunnel(serves), _) => self.egress().proxy.serve(serves),
            (Act::Publish(harm), _) => self.publish_harm(harm).await,
            (Act::FewFiles, _) => self.lack_files().await,
            (Act::Poison, _) => self.poison().await,
            (Act::Answer(behaviour), _) => self.answer(behaviour, behaviour),
            (Act::RollForward, _) => self.roll_forward().await,
            (Act::RollBack, _) => self.roll_back().await,
        }
    }

    /// Ends a fault.
    pub(crate) async fn end_fault(&mut self, fault: &Fault) {
        match (fault.act, fault.part) {
            (Act::Kill | Act::Restart | Act::LoseData | Act::OlderCopy, Part::Broker | Part::Database) => {
                block_in_place(|| self.server(fault.part).start());
            }
            (Act::LoseNode, _) => {
                self.goes_on().await;
                self.start_nodes().await;
            }
            (Act::RollNodes | Act::LoseMajority, _) => self.start_nodes().await,
            (Act::Kill | Act::KillAll, _) => self.fill(),
            (Act::Stop, Part::Ingests | Part::Dispatchers) => self.resume_processes(),
            (Act::Stop, part) => block_in_place(|| self.server(part).resume()),
            (Act::EarlierClock, part) => block_in_place(|| {
                self.server(part).stop();
                self.server(part).start();
            }),
            (Act::Scale(_), _) => self.scale_back().await,
            (Act::FillDisk(what), part) => block_in_place(|| {
                let server = self.server(part);
                disk::free(server);
                // PostgreSQL ends without room for its log.
                if what == Full::Log {
                    server.kill();
                    server.start();
                }
            }),
            (Act::WrongClock, part) => {
                let wrong = self.processes(part).pop().expect("a process");
                self.fill();
                self.end(vec![wrong]).await;
            }
            (Act::MemoryAlarm, _) => self.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]),
            (Act::DiskAlarm, _) => self.rabbitmqctl(&["set_disk_free_limit", "50MB"]),
            (Act::ReadOnly, _) => self.database_says("ALTER SYSTEM RESET default_transaction_read_only").await,
            (Act::HalfOpen, part) => self.ways(part).iter().for_each(Proxy::heal),
            (Act::Delay | Act::Late, part) => self.delay(part, Duration::ZERO),
            (Act::StopLog, part) => {
                self.dispatchers.iter().for_each(|dispatcher| dispatcher.read_log(true));
                self.roll(part).await;
            }
            (Act::Resolve(_), _) => self.egress().name_server.answer(Answers::All),
            (Act::Tunnel(_), _) => self.egress().proxy.serve(Serves::Tunnels),
            (Act::Publish(_), _) => self.end_harm().await,
            (Act::FewFiles, part) => {
                self.world.receiver.script(HANGING, &[Behaviour::OK]);
                self.roll(part).await;
            }
            (Act::Poison, part) => self.roll(part).await,
            (Act::Answer(_), _) => self.answer(Behaviour::OK, Behaviour::Answer(200, SLOW)),
            _ => {}
        }
    }

    /// Repeats a momentary fault.
    async fn repeat(&self, fault: &Fault) {
        for _ in 0..self.extent.repeats {
            match fault.act {
                Act::CloseConnections => self.rabbitmqctl(&["close_all_connections", "chaos"]),
                Act::Purge => self.purge().await,
                Act::TerminateBackends => self.terminate_backends().await,
                _ => self.ways(fault.part).iter().for_each(Proxy::reset),
            }
            // Each injection meets connections made after the last injection.
            sleep(BETWEEN).await;
        }
    }

    async fn purge(&self) {
        let broker = self.world.broker().await;
        for queue in self.world.queues() {
            broker.purge(&queue).await.expect("a purge");
        }
    }

    async fn terminate_backends(&self) {
        let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.world.count(others).await;
    }

    /// Changes a setting of the server. The session of the change must not use the setting.
    async fn database_says(&self, statement: &str) {
        let client = self.world.database().await;
        for statement in ["SET default_transaction_read_only = off", statement, "SELECT pg_reload_conf()"] {
            client.batch_execute(statement).await.expect("the database");
        }
    }

    /// Copies the data of a server, has the server go on for a while, and then replaces its data by the copy.
    async fn replace_by_older(&self, part: Part) {
        let server = self.server(part);
        let data = server.data();
        let older = data.with_extension("older");
        block_in_place(|| {
            server.stop();
            disk::copy(&data, &older);
            server.start();
        });
        // Beside another fault nothing may flow.
        let _ = timeout(READY, self.again()).await;
        // Time in which the servers take data that the copy lacks.
        sleep(self.extent.newer).await;
        block_in_place(|| {
            lose_data(server);
            fs::rename(&older, &data).expect("the older copy");
        });
    }

    /// Moves a server to a small disk of its own, has the server go on, and then fills the disk.
    async fn fill_disk(&self, part: Part, what: Full) {
        let server = self.server(part);
        if !disk::has_one(server) {
            block_in_place(|| {
                server.stop();
                disk::move_to_disk(server);
                server.start();
            });
            let _ = timeout(READY, self.again()).await;
        }
        block_in_place(|| disk::fill(server));
        if what == Full::Log {
            self.use_up_log().await;
        }
    }

    /// Has PostgreSQL begin files of its log until the disk has no room for another, and PostgreSQL ends.
    async fn use_up_log(&self) {
        const FILES: usize = 1000;
        let client = self.world.database().await;
        for _ in 0..FILES {
            if client.batch_execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(true, '', '')").await.is_err()
            {
                return;
            }
        }
        panic!("the disk is not full");
    }

    fn answer(&self, quick: Behaviour, slow: Behaviour) {
        self.world.receiver.script("quick", &[quick]);
        self.world.receiver.script("slow", &[slow]);
    }

    fn rabbitmqctl(&self, arguments: &[&str]) {
        block_in_place(|| self.brokers[0].rabbitmqctl(arguments));
    }

    pub(crate) fn processes(&mut self, part: Part) -> &mut Vec<Process> {
        if part == Part::Ingests { &mut self.ingests } else { &mut self.dispatchers }
    }

    fn server(&self, part: Part) -> &Instance {
        if part == Part::Broker { &self.brokers[0] } else { &self.database }
    }

    fn delay(&self, part: Part, delay: Duration) {
        self.ways(part).iter().for_each(|way| way.delay(delay));
    }

    fn ways(&self, part: Part) -> &[Proxy] {
        if part == Part::ToBroker { &self.to_broker } else { &self.to_database }
    }
}

/// Restarts a server with a clock that is two hours behind.
fn restart_earlier(server: &Instance) {
    let library = clock_library().expect("a library").to_string_lossy().into_owned();
    server.stop();
    server.start_with(&[("LD_PRELOAD", &library), ("FAKETIME", "-2h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
}

fn lose_data(server: &Instance) {
    server.kill();
    fs::remove_dir_all(server.data()).expect("its data go");
}
