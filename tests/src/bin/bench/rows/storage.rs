//! Bytes per delivery.

use crate::{
    figures::{Figures, Goal},
    rows::throughput::{Load, ONE_TO_ONE, ONE_TO_TEN, subscribers},
    scene::{Scene, Subject, fill, machine::Machine, processes::written_bytes},
};

const LOG: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
const DISK: &str = "SELECT pg_database_size(current_database())";

/// Deliveries of each figure.
const DELIVERIES: usize = 60_000;

/// Deliveries per second. At this rate, nearly no delivery is queued first.
const RATE: f64 = 2_000.0;

/// Measures the write-ahead log, the broker's files and the disk, at 1:1 and 1:10.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    for (load, name, log_goal, disk_goal) in [(ONE_TO_ONE, "1:1", 2.1, 1.3), (ONE_TO_TEN, "1:10", 1.2, 0.6)] {
        let load = Load { events: DELIVERIES / load.per_event, rate: Some(RATE / load.per_event as f64), ..load };
        let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(1)).await;
        fill::settle(machine, &scene).await;
        let before = Bytes::now(machine, &scene).await;
        load.deliver(machine, &mut scene).await;
        let after = Bytes::now(machine, &scene).await;
        let deliveries = scene.delivered().await.iter().sum::<f64>();
        let per_delivery = |after: f64, before: f64| (after - before) / deliveries / 1000.0;
        let (log, disk) = (per_delivery(after.log, before.log), per_delivery(after.disk, before.disk));
        figures.add(&format!("write-ahead log per delivery, {name}"), "kB", log, None, Goal::at_most(log_goal, log));
        figures.add(&format!("disk per delivery, {name}"), "kB", disk, None, Goal::at_most(disk_goal, disk));
        let queued = scene.queued().await / deliveries * 100.0;
        figures.note(format!("{queued:.0} % of the deliveries were queued first"));
        let broker = per_delivery(after.broker, before.broker);
        figures.add(&format!("broker's files per delivery, {name}"), "kB", broker, None, None);
    }
}

struct Bytes {
    log: f64,
    disk: f64,
    broker: f64,
}

impl Bytes {
    async fn now(machine: &Machine, scene: &Scene) -> Self {
        Self {
            log: scene.world.count(LOG).await as f64,
            disk: scene.world.count(DISK).await as f64,
            broker: written_bytes(machine.broker_process()) as f64,
        }
    }
}
