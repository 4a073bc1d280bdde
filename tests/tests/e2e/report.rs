//! The report of a failing test.

use std::env;

use fanfare_tests::world::World;
use tokio::process::Command;

/// Variable of the process in which the test fails.
const FAILS: &str = "FANFARE_TEST_FAILS";

#[tokio::test]
async fn a_failing_test_prints_the_logs_of_its_processes() {
    if env::var_os(FAILS).is_some() {
        let world = World::new().await;
        world.dispatcher().await.kill();
        let _dispatcher = world.dispatcher().await;
        panic!("the test fails");
    }
    let mut program = Command::new(env::current_exe().expect("the path of this program"));
    program.args(["--exact", "report::a_failing_test_prints_the_logs_of_its_processes"]).env(FAILS, "yes");
    let output = program.output().await.expect("the program starts");
    assert!(!output.status.success(), "the test did not fail");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let reports: Vec<&str> = printed.split("=== ").skip(1).collect();
    let expected = [
        ("ingest", "(ran until its drop)", "serving the API"),
        ("dispatcher", "(signal: 9 (SIGKILL))", "serving health and metrics"),
        ("dispatcher", "(ran until its drop)", "serving health and metrics"),
    ];
    assert_eq!(reports.len(), expected.len(), "{printed}");
    for (report, (name, exit, log)) in reports.iter().zip(expected) {
        assert!(report.starts_with(name) && report.contains(exit) && report.contains(log), "{name}, {exit}: {report}");
    }
}
