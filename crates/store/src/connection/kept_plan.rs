//! Statements by a plan that the connection keeps. Planning a list over the partitions of a month takes 3 to 12 ms,
//! several times as long as the list itself.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::{Row, types::ToSql};

use crate::{Store, StoreError};

/// Look-ups by keys, as planned once for all parameters. A plan that was made while the day's partition was empty must
/// not scan the partition later. `LOCAL` spares the other statements of the connection.
const KEPT_PLAN: &str = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; \
     SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

impl Store {
    /// Runs a reading statement by a kept plan. `statement` must be one of few texts: a connection keeps a plan of
    /// each text for ever.
    pub(crate) async fn query_by_kept_plan(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = begin(&mut connection).await?;
        let rows = transaction.query(&transaction.prepare_cached(statement).await?, parameters).await?;
        transaction.commit().await?;
        Ok(rows)
    }
}

/// Begins a reading transaction with one snapshot, whose cached statements run by kept plans.
pub(crate) async fn begin(connection: &mut Object) -> Result<Transaction<'_>, StoreError> {
    let transaction = connection
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    transaction.batch_execute(KEPT_PLAN).await?;
    Ok(transaction)
}
