//! The command line, and the scripts that it asks for.

use rand::{SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    faults::{FAULTS, Fault},
    script::Script,
};

const MIXES: usize = 6;

const USAGE: &str =
    "Usage: chaos [--seed NUMBER] [--runs NUMBER] [--only FAULT[+FAULT...][,...]] [--mixes] [--smoke] [--list]

Without options: each fault alone, then mixes of two or three faults, drawn from the seed.
  --seed  draws as in the earlier run with this seed
  --runs  number of mixes; with --only, number of runs
  --only  runs only these faults and mixes
  --mixes runs only mixes
  --smoke runs each fault briefly, one after the other on the same servers, the faults of nodes on three other servers;
          mixes only with --runs or --mixes
  --list  lists the faults";

pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) list: bool,
    runs: Option<usize>,
    mixes: bool,
    smoke: bool,
    only: Option<Vec<Vec<Fault>>>,
}

impl Options {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let seed = rand::random_range(0..1_000_000);
        let mut options = Self { seed, list: false, runs: None, mixes: false, smoke: false, only: None };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            let number = |value: String| value.parse().map_err(|_| format!("{name} takes a number\n\n{USAGE}"));
            match name.as_str() {
                "--list" => options.list = true,
                "--mixes" => options.mixes = true,
                "--smoke" => options.smoke = true,
                "--seed" => options.seed = number(value()?)?,
                "--runs" => options.runs = Some(usize::try_from(number(value()?)?).map_err(|error| error.to_string())?),
                "--only" => options.only = Some(value()?.split(',').map(together).collect::<Result<_, _>>()?),
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(options)
    }

    pub(crate) fn scripts(&self) -> Vec<Script> {
        if self.smoke { Script::together(self.runs()) } else { Script::apart(self.runs()) }
    }

    /// The faults of each run.
    fn runs(&self) -> Vec<Vec<Fault>> {
        if let Some(only) = &self.only {
            return vec![only.clone(); self.runs.unwrap_or(1)].concat();
        }
        let possible: Vec<Fault> = FAULTS.iter().filter(|fault| fault.left_out().is_none()).copied().collect();
        let mut draw = StdRng::seed_from_u64(self.seed);
        let mixed: Vec<Fault> = possible.iter().filter(|fault| !fault.happens_alone()).copied().collect();
        let count = self.runs.unwrap_or(if self.smoke && !self.mixes { 0 } else { MIXES });
        let mixes = (0..count).map(|number| mix(&mixed, 2 + number % 2, &mut draw));
        let alone = possible.iter().filter(|_| !self.mixes).map(|fault| vec![*fault]);
        alone.chain(mixes).collect()
    }
}

fn together(names: &str) -> Result<Vec<Fault>, String> {
    let faults: Vec<Fault> = names.split('+').map(named).collect::<Result<_, _>>()?;
    match faults.iter().find(|fault| fault.happens_alone()) {
        Some(alone) if faults.len() > 1 => Err(format!("{} happens alone", alone.name)),
        _ => Ok(faults),
    }
}

fn named(name: &str) -> Result<Fault, String> {
    let fault = FAULTS.iter().find(|fault| fault.name == name);
    let fault = *fault.ok_or_else(|| format!("there is no fault {name}: see --list"))?;
    fault.left_out().map_or(Ok(fault), |why| Err(format!("{name} cannot be had: {why}")))
}

/// Draws `size` faults, each of another part.
fn mix(possible: &[Fault], size: usize, draw: &mut StdRng) -> Vec<Fault> {
    let mut mix: Vec<Fault> = Vec::new();
    while mix.len() < size {
        let fault = possible.choose(draw).expect("faults");
        if mix.iter().all(|other| other.part != fault.part) {
            mix.push(*fault);
        }
    }
    mix
}
