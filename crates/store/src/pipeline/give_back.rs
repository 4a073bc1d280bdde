//! Leases that are given back: the delivery is queued unsent.

use fanfare_domain::{
    delivery::QueueReason,
    ids::{DeliveryId, LeaseId, ProcessId},
};

use crate::{
    Store, StoreError,
    pipeline::{
        backlogs::{TouchedBacklog, touched, with_backlogs},
        columns::Columns,
    },
};

/// A leased delivery to give back unsent.
#[derive(Debug, Clone, Copy)]
pub struct GiveBack {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Lease to end.
    pub lease: LeaseId,
    /// Reason of the give-back.
    pub reason: QueueReason,
}

impl Store {
    /// Gives leased deliveries back unsent. A lease already recovered changes nothing.
    ///
    /// The batch must be sorted by delivery.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the batch may have been queued.
    pub async fn give_back(&self, process: ProcessId, batch: &[GiveBack]) -> Result<Vec<TouchedBacklog>, StoreError> {
        let columns = Columns::new(batch, 2)
            .column("id", "uuid", |back| back.delivery.0)
            .column("lease_id", "uuid", |back| back.lease.0)
            .column("reason", "text", |back| back.reason.as_str());
        let statement = format!(
            "WITH input AS MATERIALIZED (SELECT * FROM {}), queued AS (
    UPDATE open_deliveries o
    SET state = 'queued', reason = i.reason, since = now(), lease_id = NULL, lease_until = NULL, listed = true
    FROM input i WHERE o.id = i.id AND o.id = ANY ({}) AND o.lease_id = i.lease_id AND o.state || '' = 'sending'
    RETURNING o.id, o.endpoint_id, o.application_id, o.reason
), {} SELECT * FROM touched",
            columns.table("i"),
            columns.parameter("id"),
            with_backlogs("$1")
        );
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(&statement).await?;
        let parameters: Vec<_> = [&process.0 as _].into_iter().chain(columns.values()).collect();
        Ok(writer.query(&statement, &parameters).await?.iter().map(touched).collect())
    }
}
