//! Looks after what this process knows of endpoints.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{lanes::Lanes, rates::Rates};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(60);

/// The job of the lanes.
pub(crate) struct LaneKeeper {
    pub(crate) lanes: Lanes,
    pub(crate) rates: Rates,
}

impl LaneKeeper {
    /// Forgets, until `stop`, what is known of endpoints that nobody sends to any more.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            self.lanes.forget_unused().await;
            self.rates.forget_unused().await;
        }
    }
}
