//! What the end-to-end tests and the demo share: a world of its own for each test, with its processes, a
//! receiver that keeps its own books, and clients for both doors.
//!
//! Nothing here knows the inside of Fanfare: it is run as its users run it, by its binaries, its API and
//! its messages.

pub mod books;
pub mod broker;
pub mod bytes;
pub mod client;
pub mod collector;
pub mod dialects;
pub mod instance;
pub mod load;
pub mod metrics;
pub mod node;
pub mod patience;
pub mod process;
pub mod proxy;
pub mod python;
pub mod receiver;
pub mod signature;
pub mod world;
