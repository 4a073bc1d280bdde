//! Jobs on tables as a whole: partitions, retention, archive, rollups, indexes, vacuum, and the counts of rows.

mod archive;
mod census;
mod indexes;
mod parked;
mod partitions;
mod rollups;
mod sweep;

pub(crate) use archive::ArchiveDays;
pub(crate) use census::census;
pub(crate) use indexes::build_indexes;
pub(crate) use parked::trim_parked;
pub(crate) use partitions::Partitions;
pub(crate) use rollups::rollups;
pub(crate) use sweep::{Sweep, vacuum};
