//! Waiting for the end of the work.

use std::time::Duration;

use fanfare_tests::patience::until_within;
use tokio::time::sleep;

use super::{Scene, processes::processor_time};

impl Scene {
    /// Waits until no event waits for a dispatcher.
    pub(crate) async fn all_taken(&self) {
        let broker = self.world.broker().await;
        until_within(self.patience, "all events to be taken", async || {
            (broker.depth("events").await.expect("the broker") == 0).then_some(())
        })
        .await;
    }

    /// Waits until no delivery waits for an attempt, or is being attempted.
    pub(crate) async fn all_delivered(&self) {
        let database = self.world.database().await;
        let open = "SELECT (SELECT count(*) FROM open_deliveries) + (SELECT count(*) FROM fan_outs)";
        until_within(self.patience, "all deliveries to end", async || {
            (database.query_one(open, &[]).await.expect("a number").get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }

    /// Waits until no delivery is queued, or is being attempted.
    pub(crate) async fn none_queued(&self) {
        let database = self.world.database().await;
        let queued = "SELECT EXISTS (SELECT FROM open_deliveries WHERE state IN ('queued', 'sending'))";
        until_within(self.patience, "no delivery to be queued", async || {
            (!database.query_one(queued, &[]).await.expect("an answer").get::<_, bool>(0)).then_some(())
        })
        .await;
    }

    /// Waits until the servers have done what was left of earlier work, or go on with it for long.
    pub(crate) async fn quiet(&self, within: Duration) {
        let busy = || self.servers.iter().map(|(_, process)| processor_time(*process)).sum::<Duration>();
        for _ in 0..within.as_secs() {
            let before = busy();
            // The second over which the processor time is measured.
            sleep(Duration::from_secs(1)).await;
            if busy() - before < Duration::from_millis(100) {
                return;
            }
        }
    }

    /// Waits until at least `count` deliveries were recorded as delivered. Returns the number.
    pub(super) async fn wait_for_recorded(&mut self, count: u64) -> u64 {
        let what = format!("{count} deliveries to be recorded");
        until_within(self.patience, &what, async || Some(self.recorded().await).filter(|recorded| *recorded >= count))
            .await
    }
}
