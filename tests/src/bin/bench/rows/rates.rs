//! Endpoints with a rate limit.

use tokio::time::{Instant, sleep};

use crate::{
    figures::{Figures, Goal},
    rows::latency::subscriber,
    scene::{Scene, Subject, Subscriber, machine::Machine},
};

/// Limit of attempts per second, group of the receiver, and published events per permitted attempt.
const RATES: [(u32, &str, f64); 2] = [(10, "ten", 2.0), (1_000, "thousand", 1.5)];

/// Warm-up until a rate is steady, and duration of the measurement, in seconds.
const STEADY: u32 = 5;
const MEASURED: u32 = 10;

/// Measures the rate of requests to two limited endpoints, with a single dispatcher and with four.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    for dispatchers in [1, 4] {
        let limited = RATES.iter().enumerate();
        let limited: Vec<Subscriber> = limited
            .map(|(number, (rate, group, _))| Subscriber { rate: Some(*rate), ..subscriber(group, "ok", number) })
            .collect();
        let mut scene = Scene::set(machine, &limited, Subject::Fanfare(dispatchers)).await;
        let mut publishing = Vec::new();
        for ((rate, _, factor), subscriber) in RATES.iter().zip(&limited) {
            let events = scene.own_application(&subscriber.types);
            let seconds = machine.seconds(STEADY) + machine.seconds(MEASURED);
            publishing.push(scene.publish_beside(&events, f64::from(*rate) * factor, seconds).await);
        }
        // No condition shows a steady rate: a rate becomes steady with time.
        sleep(machine.wait(STEADY)).await;
        scene.received().await;
        let began = Instant::now();
        // The time over which the rate is measured.
        sleep(machine.wait(MEASURED)).await;
        let received = scene.received().await;
        let took = began.elapsed().as_secs_f64();
        for (rate, group, _) in RATES {
            let seen = received[group]["count"].as_f64().unwrap_or_default() / took;
            let wanted = f64::from(rate);
            let name = format!("endpoint limited to {rate}/s, {dispatchers} dispatchers");
            figures.add(&name, "/s", seen, Some(wanted), Goal::within(0.05, wanted, seen));
        }
        for publishing in publishing {
            publishing.await.expect("the events are published");
        }
    }
}
