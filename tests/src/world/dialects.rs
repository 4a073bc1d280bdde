//! The shipped dialects with waits short enough for tests, written into a folder of the test.

use std::{collections::HashMap, fs, path::Path};

use toml::Table;

use crate::world::release::Release;

/// Event types of the tests, added to each dialect.
const MORE_TYPES: [&str; 6] = ["a", "order", "order.created", "order.shipped", "invoice.paid", "points.earned"];

/// The retry schedule of a world's dialects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Waits {
    /// The shipped number of retries, with a wait of 1 s each.
    Short,
    /// The given waits in every dialect.
    Given(Vec<String>),
    /// The shipped waits.
    Real,
}

impl Waits {
    /// Parses comma-separated waits: `5s,5s`.
    pub fn of(text: &str) -> Self {
        Self::Given(text.split(',').map(str::to_owned).collect())
    }
}

/// Writes all shipped dialects of a release with the changed settings. The previous release may be unable to read a
/// newer dialect. Returns the names of the needed delay queues.
///
/// # Panics
/// If a file cannot be read or written.
pub fn write(folder: &Path, release: &Release, waits: &Waits, timeout: Option<&str>) -> Vec<String> {
    fs::create_dir_all(folder).expect("a folder for the dialects");
    let mut delays = Vec::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/domain/dialects");
    let known = (*release != Release::present()).then(|| release.fanfare(&HashMap::new(), &["dialect", "list"]));
    let is_known = |path: &Path| {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        known.as_ref().is_none_or(|known| known.lines().any(|line| line.split_whitespace().next() == Some(name)))
    };
    for entry in fs::read_dir(shipped).expect("the shipped dialects") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_owned();
        if path.extension().is_none_or(|extension| extension != "toml") || !is_known(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a dialect");
        let mut dialect: Table = text.parse().expect("TOML");
        let delivery = dialect["delivery"].as_table_mut().expect("delivery");
        let schedule = delivery["schedule"].as_array().expect("a schedule").clone();
        let schedule: Vec<String> = match waits {
            Waits::Short => schedule.iter().map(|_| "1s".to_owned()).collect(),
            Waits::Given(waits) => waits.clone(),
            Waits::Real => schedule.iter().map(|wait| wait.as_str().expect("a wait").to_owned()).collect(),
        };
        delivery.insert("schedule".to_owned(), schedule.clone().into());
        if let Some(timeout) = timeout {
            delivery.insert("timeout".to_owned(), timeout.into());
        }
        delays.extend(schedule);
        let types = dialect["event_types"].as_array_mut().expect("event types");
        let known: Vec<String> =
            types.iter().map(|event_type| event_type["name"].as_str().expect("a name").to_owned()).collect();
        for name in MORE_TYPES.iter().filter(|name| !known.iter().any(|known| known == *name)) {
            let described =
                [("name", *name), ("category", "Tests"), ("description", "For tests"), ("sample", "{\"n\":1}")];
            let described: Table = described.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect();
            types.push(described.into());
        }
        fs::write(folder.join(name), toml::to_string(&dialect).expect("TOML")).expect("a dialect is written");
    }
    delays
}
