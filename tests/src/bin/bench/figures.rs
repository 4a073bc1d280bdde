//! Figures, their goals, and the table of figures.

use std::{collections::HashMap, fmt, fs, path::Path};

use serde::{Deserialize, Serialize};

/// Goal of a figure, and the result of the comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goal {
    text: String,
    is_met: bool,
}

impl Goal {
    pub(crate) fn at_most(most: f64, value: f64) -> Option<Self> {
        Some(Self { text: format!("≤ {}", Number(most)), is_met: value <= most })
    }

    /// Accepts `wanted`, plus or minus `share` of `wanted`.
    pub(crate) fn within(share: f64, wanted: f64, value: f64) -> Option<Self> {
        let text = format!("{} ± {:.0} %", Number(wanted), share * 100.0);
        Some(Self { text, is_met: (value - wanted).abs() <= share * wanted })
    }

    /// Accepts values from `share` of the ceiling on. A `least` above 0 is a second minimum.
    pub(crate) fn at_least_of(share: f64, ceiling: f64, least: f64, value: f64) -> Option<Self> {
        let mut text = format!("≥ {:.0} %", share * 100.0);
        if least > 0.0 {
            text += &format!(" and ≥ {}", Number(least));
        }
        Some(Self { text, is_met: value >= least && value >= share * ceiling })
    }
}

/// Row of the table and of the JSON file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    name: String,
    unit: String,
    value: f64,
    /// Value of the comparison: the ceiling, or the same measurement without the load.
    beside: Option<f64>,
    goal: Option<Goal>,
    notes: Vec<String>,
}

/// Figures of a run. Each figure is printed at once.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    figures: Vec<Figure>,
    /// Values of an earlier run, by the names of the figures.
    earlier: HashMap<String, f64>,
    /// False in a smoke run: figures get no goals.
    is_judged: bool,
}

const WIDTHS: [usize; 4] = [58, 12, 12, 8];

impl Figures {
    /// Prints the table's header, and reads the figures of an earlier run for comparison. `None` ignores all goals.
    ///
    /// # Errors
    /// If the file of the earlier run exists, and does not contain figures.
    pub(crate) fn begin(earlier: Option<&Path>) -> anyhow::Result<Self> {
        let is_judged = earlier.is_some();
        let earlier: Vec<Figure> = match earlier.map(fs::read) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes)?,
            _ => Vec::new(),
        };
        Self::print_line(["figure", "measured", "comparison", "share"], "goal");
        let earlier = earlier.into_iter().map(|figure| (figure.name, figure.value)).collect();
        Ok(Self { figures: Vec::new(), earlier, is_judged })
    }

    pub(crate) fn add(&mut self, name: &str, unit: &str, value: f64, beside: Option<f64>, goal: Option<Goal>) {
        let goal = goal.filter(|_| self.is_judged);
        let figure = Figure { name: name.to_owned(), unit: unit.to_owned(), value, beside, goal, notes: Vec::new() };
        let share = figure.beside.map_or(String::new(), |beside| format!("{:.0} %", value / beside * 100.0));
        let mut judgement = figure
            .goal
            .as_ref()
            .map_or(String::new(), |goal| format!("{} {}", goal.text, if goal.is_met { "reached" } else { "MISSED" }));
        if let Some(earlier) = self.earlier.get(name) {
            judgement += &format!("  (before: {}, {:+.0} %)", Number(*earlier), (value / earlier - 1.0) * 100.0);
        }
        let with_unit = |value: f64| format!("{} {unit}", Number(value));
        let beside = figure.beside.map_or(String::new(), with_unit);
        Self::print_line([name, &with_unit(value), &beside, &share], &judgement);
        self.figures.push(figure);
    }

    /// Prints a note, and adds the note to the last figure.
    pub(crate) fn note(&mut self, note: String) {
        println!("    {note}");
        if let Some(figure) = self.figures.last_mut() {
            figure.notes.push(note);
        }
    }

    fn print_line(cells: [&str; 4], judgement: &str) {
        let [name, value, beside, share] = cells;
        let [first, second, third, fourth] = WIDTHS;
        println!("{name:<first$}{value:>second$}{beside:>third$}{share:>fourth$}  {judgement}");
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(file, serde_json::to_vec_pretty(&self.figures)?)?)
    }

    /// Returns the number of missed goals.
    pub(crate) fn missed(&self) -> usize {
        self.figures.iter().filter(|figure| figure.goal.as_ref().is_some_and(|goal| !goal.is_met)).count()
    }
}

/// Number for the table: with a decimal place below 100, with grouped thousands otherwise.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        if value < 100.0 {
            return write!(formatter, "{value:.1}");
        }
        let whole = format!("{value:.0}");
        for (position, digit) in whole.chars().enumerate() {
            if position > 0 && (whole.len() - position) % 3 == 0 {
                write!(formatter, ",")?;
            }
            write!(formatter, "{digit}")?;
        }
        Ok(())
    }
}
