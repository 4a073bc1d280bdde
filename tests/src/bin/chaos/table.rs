//! What came of the runs.

use std::{fmt, path::PathBuf, process::ExitCode, time::Duration};

use fanfare_tests::books::Totals;

/// What came of a run.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) totals: Totals,
    /// How long it took until something was delivered that had been accepted after the end of the fault.
    pub(crate) again: Option<Duration>,
    pub(crate) notes: Vec<String>,
    /// What is wrong.
    pub(crate) faults: Vec<String>,
    /// Where the evidence is, if anything is wrong.
    pub(crate) evidence: Option<PathBuf>,
}

const HEAD: [&str; 8] = ["accepted", "delivered", "missing", "repeats", "attempts", "seen", "unknown", "again"];

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { accepted, delivered, requests, repeats, attempts, unknown, missing } = self.totals;
        let again = self.again.map_or("never".to_owned(), |again| format!("{:.1} s", again.as_secs_f32()));
        let verdict = match (self.faults.len(), missing) {
            (0, 0) => "kept all",
            (0, _) => "kept what it could",
            _ => "FAILED",
        };
        let numbers = [accepted, delivered, missing, repeats].map(|number| number.to_string());
        let more = [attempts.to_string(), requests.to_string(), unknown.to_string(), again];
        line(formatter, &self.name, numbers.iter().chain(&more).map(String::as_str), verdict)
    }
}

fn line<'a>(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    mut cells: impl Iterator<Item = &'a str>,
    verdict: &str,
) -> fmt::Result {
    write!(formatter, "{name:<50}")?;
    cells.try_for_each(|cell| write!(formatter, "{cell:>10}"))?;
    write!(formatter, "  {verdict}")
}

/// Letters of a fault; the evidence has it whole.
const SHOWN: usize = 300;

/// All rows. The numbers are of deliveries: an event counts once for each endpoint.
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// An empty one, of which the head is printed.
    pub(crate) fn begin() -> Self {
        let table = Self(Vec::new());
        println!("{table}");
        table
    }

    /// Adds a row, and prints it.
    pub(crate) fn add(&mut self, row: Row) {
        println!("{row}");
        for fault in row.faults.iter().take(5) {
            println!("    {}", fault.chars().take(SHOWN).collect::<String>());
        }
        if let Some(evidence) = &row.evidence {
            println!("    {} faults; the evidence is in {}", row.faults.len(), evidence.display());
        }
        self.0.push(row);
    }

    /// Success where no run lost anything.
    pub(crate) fn ends_well(&self) -> ExitCode {
        if self.0.iter().all(|row| row.faults.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "fault", HEAD.into_iter(), "verdict")?;
        for row in &self.0 {
            write!(formatter, "\n{row}")?;
            if !row.notes.is_empty() {
                write!(formatter, "  ({})", row.notes.join("; "))?;
            }
        }
        Ok(())
    }
}
