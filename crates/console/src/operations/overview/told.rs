//! The application that gets operational events, and the last events.

use fanfare_api::ApiError;
use fanfare_domain::ids::{ApplicationId, EventId};
use jiff::Timestamp;

use crate::Console;

/// Rows of the list.
const ROWS: usize = 20;

/// The told changes.
pub(super) struct Told {
    /// The application that the operator names.
    pub(super) application: ApplicationId,
    /// Its name.
    pub(super) name: String,
    pub(super) rows: Vec<ToldRow>,
}

/// The last event about a condition.
pub(super) struct ToldRow {
    pub(super) at: Timestamp,
    pub(super) condition: String,
    /// True while the condition holds.
    pub(super) holds: bool,
    /// Application concerned, with its name.
    pub(super) application: Option<(ApplicationId, String)>,
    pub(super) event: EventId,
}

/// Reads the told changes; `None` if no dispatcher ever told operational events.
pub(super) async fn read(console: &Console) -> Result<Option<Told>, ApiError> {
    let store = &console.api.store;
    let Some(application) = store.operational_application().await? else { return Ok(None) };
    let told = store.last_operational_events(ROWS).await?;
    let concerned = told.iter().filter_map(|(state, _)| state.application).chain([application]);
    let names = store.names(None, &concerned.collect::<Vec<_>>(), &[]).await?.applications;
    let name = |id: ApplicationId| {
        let known = names.iter().find(|(known, _)| *known == id);
        known.map_or_else(|| id.to_string(), |(_, name)| name.clone())
    };
    let row = |(state, at): &(fanfare_store::OperationalState, Timestamp)| {
        Some(ToldRow {
            at: *at,
            condition: state.key.condition.as_str().replace('_', " "),
            holds: state.state.holds,
            application: state.application.map(|id| (id, name(id))),
            event: state.event?,
        })
    };
    Ok(Some(Told { application, name: name(application), rows: told.iter().filter_map(row).collect() }))
}
