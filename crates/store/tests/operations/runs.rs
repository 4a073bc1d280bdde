//! Last runs of jobs, and depths of queues.

use std::time::Duration;

use fanfare_store::Job;

use crate::database::{Database, ONE, TWO};

#[tokio::test]
async fn the_last_run_of_a_job_is_kept() {
    let database = Database::new().await;
    let took = Duration::from_millis(7);
    database.store.note_run(Job::Census, ONE, took, None).await.expect("a commit");
    let runs = database.store.job_runs().await.expect("runs");
    assert_eq!((runs.len(), runs[0].job.as_str(), runs[0].process, runs[0].duration), (1, "census", ONE, took));
    let succeeded = runs[0].succeeded_at;
    assert!(runs[0].error.is_none() && succeeded.is_some());
    database.store.note_run(Job::Census, TWO, took, None).await.expect("a look");
    assert_eq!(database.store.job_runs().await.expect("runs"), runs, "the same outcome within 10 s");
    database.store.note_run(Job::Census, TWO, took, Some("no")).await.expect("a commit");
    let runs = database.store.job_runs().await.expect("runs");
    assert_eq!((runs[0].process, runs[0].error.as_deref(), runs[0].succeeded_at), (TWO, Some("no"), succeeded));
}

#[tokio::test]
async fn depths_are_kept_by_the_minute() {
    let database = Database::new().await;
    let of = |ready| vec![("events".to_owned(), ready, 2), ("parked".to_owned(), 0, 1)];
    database.store.note_depths(&of(5)).await.expect("a commit");
    database.store.note_depths(&of(6)).await.expect("a look");
    let depths = database.store.queue_depths().await.expect("depths");
    let shown: Vec<_> = depths.iter().map(|depth| (depth.queue.as_str(), depth.ready, depth.consumers)).collect();
    assert_eq!(shown, [("events", 5, 2), ("parked", 0, 1)], "another process has just looked");
    database
        .run(
            "UPDATE queue_depths SET at = at - interval '1 minute', looked_at = looked_at - interval '1 minute';
             INSERT INTO queue_depths VALUES ('events', now() - interval '25 hours', 1, 1)",
        )
        .await;
    database.store.note_depths(&of(9)).await.expect("a commit");
    let depths = database.store.queue_depths().await.expect("depths");
    assert_eq!((depths[0].ready, depths[0].ready_before), (9, 5));
    assert_eq!(database.count("queue_depths").await, 4, "the row of the day before is gone");
}
