//! Messages that could not be read.

/// Where a parked message came from, and is put back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The events exchange: somebody published it.
    Events,
    /// The deliveries exchange: it is a claim, or was taken for one.
    Deliveries,
}

impl Origin {
    /// The word for it in messages and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliveries => "deliveries",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Events, Self::Deliveries].into_iter().find(|origin| origin.as_str() == text)
    }
}
