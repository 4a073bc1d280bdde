//! Command line of the bench.

use std::{path::PathBuf, process::exit};

use anyhow::{Context, bail};
use fanfare_tests::servers::instance::repository;

use crate::{
    measurements::{MEASUREMENTS, Measurement},
    scene::machine::Extent,
};

const USAGE: &str =
    "Usage: bench [--only MEASUREMENT[+MEASUREMENT...]] [--smoke | --long] [--times NUMBER] [--bytes NUMBER]
             [--against FILE] [--list]

  --only     runs only these measurements
  --smoke    runs a hundredth of each measurement, and judges no figure
  --long     runs the full sizes of the goals, and the measurements that need them: hours, 50 GB of disk
  --times    number of runs of each throughput, of which the median counts; default 3
  --bytes    size of an event's message; default 440
  --against  JSON of an earlier run to compare with; default: the last run
  --list     lists the measurements";

/// Default size of an event's message, in bytes. The design's figures are for this size.
const BYTES: usize = 440;

pub(crate) struct Options {
    only: Option<Vec<String>>,
    pub(crate) extent: Extent,
    pub(crate) times: usize,
    pub(crate) bytes: usize,
    pub(crate) against: PathBuf,
}

impl Options {
    /// Reads the arguments. `--list` prints the measurements and ends the process.
    ///
    /// # Errors
    /// If an argument is unknown, or lacks its value.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { only: None, extent: Extent::Usual, times: 3, bytes: BYTES, against: last_run() };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--list" => {
                    MEASUREMENTS.iter().for_each(|row| println!("{:<16} {}", row.name, row.about));
                    exit(0);
                }
                "--smoke" => {
                    (options.extent, options.times) = (Extent::Smoke, 1);
                    continue;
                }
                "--long" => {
                    options.extent = Extent::Long;
                    continue;
                }
                _ => {}
            }
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--only" => options.only = Some(value.split('+').map(known_name).collect::<anyhow::Result<_>>()?),
                "--times" => options.times = value.parse().ok().filter(|times| *times > 0).context(USAGE)?,
                "--bytes" => options.bytes = value.parse().ok().filter(|bytes| *bytes >= 120).context(USAGE)?,
                "--against" => options.against = value.into(),
                _ => bail!(USAGE),
            }
        }
        Ok(options)
    }

    pub(crate) fn selects(&self, measurement: &Measurement) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == measurement.name))
    }
}

fn known_name(name: &str) -> anyhow::Result<String> {
    match MEASUREMENTS.iter().any(|known| known.name == name) {
        true => Ok(name.to_owned()),
        false => bail!("unknown measurement {name}: --list lists the measurements"),
    }
}

/// Returns the path of the file with the figures of the last run.
pub(crate) fn last_run() -> PathBuf {
    repository().join(".dev/bench/last.json")
}
