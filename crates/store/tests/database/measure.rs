//! Measures the buffers and rows touched by a call of the store, by the statistics of the tables.

use std::{collections::HashMap, time::Duration};

use fanfare_store::Store;

use super::Database;

/// Buffers and sequential scans of a call.
#[derive(Debug)]
pub(crate) struct Touched {
    /// Buffers of tables and their indexes.
    pub(crate) buffers: i64,
    /// Rows read by sequential scans, by table.
    pub(crate) scanned: HashMap<String, i64>,
}

/// Keeps autovacuum away from all tables and BRIN indexes: the statistics of a table contain the buffers of its vacuum.
const WITHOUT_AUTOVACUUM: &str = r"
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
    END LOOP;
    FOR name IN SELECT i.oid::regclass FROM pg_class i JOIN pg_am a ON a.oid = i.relam
                WHERE a.amname = 'brin' AND i.relkind = 'i' LOOP
        EXECUTE format('ALTER INDEX %s SET (autosummarize = off)', name);
    END LOOP;
END $$;
";

type Figures = HashMap<String, (i64, i64)>;

impl Database {
    /// Keeps autovacuum away from the present tables and partitions. A test calls this before it fills the tables.
    pub(crate) async fn without_autovacuum(&self) {
        self.run(WITHOUT_AUTOVACUUM).await;
    }

    /// Runs `look` with a separate store, whose sessions report their statistics when they end. Other sessions of the
    /// test may report meanwhile: a test with narrow bounds keeps no other session.
    pub(crate) async fn measured<T>(&self, look: impl AsyncFnOnce(Store) -> T) -> (T, Touched) {
        let kept = self.sessions().await;
        let before = self.figures().await;
        let found = look(self.another_store()).await;
        self.await_end_of_others(&kept).await;
        let after = self.figures().await;
        let mut touched = Touched { buffers: 0, scanned: HashMap::new() };
        for (table, (buffers, scanned)) in after {
            let (earlier, scanned_earlier) = before.get(&table).copied().unwrap_or_default();
            touched.buffers += buffers - earlier;
            if scanned > scanned_earlier {
                touched.scanned.insert(table, scanned - scanned_earlier);
            }
        }
        (found, touched)
    }

    /// Waits until no other session of a store remains: each session reports its statistics before it ends.
    async fn await_end_of_others(&self, kept: &[i32]) {
        for _ in 0..400 {
            if self.sessions().await.iter().all(|session| kept.contains(session)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("sessions of a store remain");
    }

    async fn sessions(&self) -> Vec<i32> {
        let statement =
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'fanfare'";
        self.rows(statement, &[]).await.iter().map(|row| row.get(0)).collect()
    }

    /// Touched buffers and rows of sequential scans, by table.
    async fn figures(&self) -> Figures {
        // Flushes the statistics of the test's own session, which are not part of the look.
        self.run("SELECT pg_stat_force_next_flush()").await;
        self.run("SELECT pg_stat_clear_snapshot()").await;
        let statement = "SELECT i.relname::text, coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0)
                                + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0) + coalesce(toast_blks_read, 0)
                                + coalesce(toast_blks_hit, 0), coalesce(s.seq_tup_read, 0)
                         FROM pg_statio_user_tables i JOIN pg_stat_user_tables s USING (relid)";
        self.rows(statement, &[]).await.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }
}
