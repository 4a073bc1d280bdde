//! Measurements. Each measurement adds its rows to the table.

pub(crate) mod console;
pub(crate) mod foreign;
pub(crate) mod growth;
pub(crate) mod isolation;
pub(crate) mod latency;
pub(crate) mod lists;
pub(crate) mod locks;
pub(crate) mod outages;
pub(crate) mod rates;
pub(crate) mod raw;
pub(crate) mod retries;
pub(crate) mod rollups;
pub(crate) mod slow;
pub(crate) mod storage;
pub(crate) mod throughput;
pub(crate) mod way_back;
