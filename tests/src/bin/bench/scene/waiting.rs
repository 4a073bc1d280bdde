//! Waits for the end of work.

use std::time::Duration;

use fanfare_tests::patience::until_promptly;
use tokio::time::sleep;

use super::{Scene, processes::processor_time};

impl Scene {
    /// Waits until no event waits for a dispatcher.
    pub(crate) async fn wait_until_consumed(&self) {
        let broker = self.world.broker().await;
        until_promptly(self.patience, "the consumption of all events", async || {
            (broker.depth("events").await.expect("the broker") == 0).then_some(())
        })
        .await;
    }

    /// Waits until all deliveries have ended: no delivery waits for an attempt or has an attempt in flight.
    pub(crate) async fn wait_until_ended(&self) {
        let database = self.world.database().await;
        let open = "SELECT (SELECT count(*) FROM open_deliveries) + (SELECT count(*) FROM fan_outs)";
        until_promptly(self.patience, "the end of all deliveries", async || {
            (database.query_one(open, &[]).await.expect("a number").get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }

    /// Waits until no delivery is queued or has an attempt in flight.
    pub(crate) async fn wait_until_none_queued(&self) {
        let database = self.world.database().await;
        let queued = "SELECT EXISTS (SELECT FROM open_deliveries WHERE state IN ('queued', 'sending'))";
        until_promptly(self.patience, "the end of all queued deliveries", async || {
            (!database.query_one(queued, &[]).await.expect("an answer").get::<_, bool>(0)).then_some(())
        })
        .await;
    }

    /// Waits until the servers have ended their earlier work, for at most `within`.
    pub(crate) async fn wait_until_quiet(&self, within: Duration) {
        let busy = || self.servers.iter().map(|(_, process)| processor_time(*process)).sum::<Duration>();
        for _ in 0..within.as_secs() {
            let before = busy();
            // The second of the sample of the processor time.
            sleep(Duration::from_secs(1)).await;
            if busy() - before < Duration::from_millis(100) {
                return;
            }
        }
    }

    /// Waits until at least `count` deliveries are recorded as delivered. Returns the number of recorded deliveries.
    pub(super) async fn wait_for_recorded(&mut self, count: u64) -> u64 {
        let text = format!("the record of {count} deliveries");
        until_promptly(self.patience, &text, async || Some(self.recorded().await).filter(|recorded| *recorded >= count))
            .await
    }
}
