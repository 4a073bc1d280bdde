//! The table of all rows.

use std::{fmt, path::PathBuf, process::ExitCode, time::Duration};

use fanfare_tests::ledger::Totals;

/// The result of a step.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The sums of the ledger; none unless the step has closed the ledger.
    pub(crate) totals: Option<Totals>,
    /// From the end of the fault to the delivery of a later event.
    pub(crate) again: Option<Duration>,
    pub(crate) took: Duration,
    pub(crate) notes: Vec<String>,
    pub(crate) failures: Vec<String>,
    /// The folder with the evidence of a failure.
    pub(crate) evidence: Option<PathBuf>,
}

const HEAD: [&str; 9] = ["accepted", "delivered", "missing", "repeats", "attempts", "seen", "unknown", "again", "took"];

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match (self.failures.len(), self.totals.map(|totals| totals.missing)) {
            (0, Some(0)) => "kept all",
            (0, Some(_)) => "kept what it could",
            (0, None) => "went on",
            _ => "FAILED",
        };
        let numbers = self.totals.map_or_else(Default::default, |totals| {
            let Totals { accepted, delivered, requests, repeats, attempts, unknown, missing } = totals;
            let counts = [accepted, delivered, missing, repeats].map(|number| number.to_string());
            let [accepted, delivered, missing, repeats] = counts;
            [accepted, delivered, missing, repeats, attempts.to_string(), requests.to_string(), unknown.to_string()]
        });
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f32());
        let times = [self.again.map(seconds).unwrap_or_default(), seconds(self.took)];
        line(formatter, &self.name, numbers.iter().chain(&times).map(String::as_str), class)
    }
}

fn line<'a>(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    mut cells: impl Iterator<Item = &'a str>,
    class: &str,
) -> fmt::Result {
    write!(formatter, "{name:<50}")?;
    cells.try_for_each(|cell| write!(formatter, "{cell:>10}"))?;
    write!(formatter, "  {class}")
}

/// The most printed letters of a fault. The evidence has the whole text.
const SHOWN: usize = 300;

/// All rows. The numbers are of deliveries: an event counts once for each endpoint.
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// An empty table. Prints the head.
    pub(crate) fn begin() -> Self {
        let table = Self(Vec::new());
        println!("{table}");
        table
    }

    /// Adds and prints a row.
    pub(crate) fn add(&mut self, row: Row) {
        println!("{row}");
        for fault in row.failures.iter().take(5) {
            println!("    {}", fault.chars().take(SHOWN).collect::<String>());
        }
        if let Some(evidence) = &row.evidence {
            println!("    {} failures; the evidence is in {}", row.failures.len(), evidence.display());
        }
        self.0.push(row);
    }

    /// Prints the steps prevented by a failure.
    pub(crate) fn skip(&self, steps: Vec<String>) {
        if !steps.is_empty() {
            println!("    prevented: {}", steps.join(", "));
        }
    }

    /// Success where no step failed.
    pub(crate) fn ends_well(&self) -> ExitCode {
        if self.0.iter().all(|row| row.failures.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "fault", HEAD.into_iter(), "class")?;
        for row in &self.0 {
            write!(formatter, "\n{row}")?;
            if !row.notes.is_empty() {
                write!(formatter, "  ({})", row.notes.join("; "))?;
            }
        }
        Ok(())
    }
}
