//! Way back: time until no endpoint has a backlog, after a period of late answers. The load goes on.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    figures::{Figures, Goal},
    rows::{
        latency::{subscribers, types},
        throughput::WARM_UP,
    },
    scene::{Changes, Scene, Subject, Via, machine::Machine},
};

const ENDPOINTS: usize = 100;

/// Events that measure the capacity.
const EVENTS: usize = 30_000;

/// Deadline of attempts: no attempt with a late answer fails.
const DEADLINE: &str = "30s";

/// Delay of late answers in milliseconds, and duration of the late answers in seconds.
const LATE_MS: u64 = 10_000;
const LATE_SECONDS: u32 = 10;

/// Goal of the way back, in seconds: every event is sent directly again.
const GOAL_SECONDS: u32 = 60;

const BACKLOGS: &str = "SELECT count(*) FROM endpoint_backlogs";

/// Measures the way back of a single dispatcher and of four, at 65 and 80 % of their capacity.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    for dispatchers in [1, 4] {
        let all = subscribers("late", "late", ENDPOINTS);
        let changes = Changes { timeout: Some(DEADLINE.to_owned()), ..Changes::default() };
        let mut scene = Scene::with(machine, &all, Subject::Fanfare(dispatchers), changes).await;
        scene.deliver(Via::Amqp, &types(ENDPOINTS), machine.count(WARM_UP), 1, None).await;
        let capacity = scene.deliver(Via::Amqp, &types(ENDPOINTS), machine.count(EVENTS), 1, None).await.per_second;
        for percent in [65, 80] {
            let rate = capacity * f64::from(percent) / 100.0;
            let (seconds, most) = way_back(machine, &mut scene, rate).await;
            let goal = if percent == 65 { Goal::at_most(f64::from(GOAL_SECONDS), seconds) } else { None };
            let name = format!("the way back at {percent} % of the capacity, {dispatchers} dispatchers");
            figures.add(&name, "s", seconds, None, goal);
            figures.note(format!("at {rate:.0}/s; maximum of endpoints with a backlog: {most}"));
        }
    }
}

/// Returns the way back, and the maximum number of endpoints with a backlog.
///
/// The way back is the time from the end of late answers to the last backlog, in seconds.
async fn way_back(machine: &Machine, scene: &mut Scene, rate: f64) -> (f64, i64) {
    let events = scene.own_application(&types(ENDPOINTS));
    let watched = machine.wait(GOAL_SECONDS + 30);
    let seconds = machine.seconds(5) + machine.seconds(LATE_SECONDS) + watched.as_secs_f64();
    let publishing = scene.publish_beside(&events, rate, seconds).await;
    // The load runs first without and then with late answers.
    sleep(machine.wait(5)).await;
    scene.answer_late(LATE_MS.min((machine.seconds(LATE_SECONDS) * 1000.0) as u64)).await;
    sleep(machine.wait(LATE_SECONDS)).await;
    scene.answer_late(0).await;
    let (began, mut last, mut most) = (Instant::now(), 0.0, 0);
    while began.elapsed() < watched {
        let backlogs = scene.world.count(BACKLOGS).await;
        if backlogs > 0 {
            last = began.elapsed().as_secs_f64();
        }
        most = backlogs.max(most);
        // The interval of the polls: a backlog may return until the end.
        sleep(Duration::from_millis(200)).await;
    }
    publishing.await.expect("the events are published");
    scene.wait_until_ended().await;
    (last, most)
}
