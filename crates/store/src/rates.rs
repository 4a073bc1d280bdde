//! The rates of endpoints, which hold across processes: each leases the next few places in one sequence.

use std::time::Duration;

use fanfare_domain::ids::EndpointId;

use crate::{Store, StoreError, store::milliseconds};

/// Places in an endpoint's sequence of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// In how long the first is due.
    pub first_in: Duration,
    /// How long each lasts.
    pub each: Duration,
    /// How many they are.
    pub places: u32,
}

impl Store {
    /// Leases the next `places` of an endpoint that gets `rate` attempts in a second. None where the first of
    /// them would be more than `reach` ahead.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn lease(
        &self,
        endpoint: EndpointId,
        rate: u32,
        places: u32,
        reach: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        // A sequence that was idle begins now: what was not used is not made up for.
        let statement = "INSERT INTO endpoint_rates AS r (endpoint_id, taken_until)
                         VALUES ($1, now() + $2::float8 * interval '1 second')
                         ON CONFLICT (endpoint_id) DO UPDATE
                         SET taken_until = greatest(r.taken_until, now()) + $2::float8 * interval '1 second'
                         WHERE r.taken_until <= now() + $3::bigint * interval '1 millisecond'
                         RETURNING extract(epoch FROM taken_until - now())::float8 - $2::float8";
        let each = 1.0 / f64::from(rate.max(1));
        let length = each * f64::from(places);
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(statement).await?;
        let row = connection.query_opt(&statement, &[&endpoint.0, &length, &milliseconds(reach)]).await?;
        Ok(row.map(|row| Lease {
            first_in: Duration::try_from_secs_f64(row.get(0)).unwrap_or_default(),
            each: Duration::from_secs_f64(each),
            places,
        }))
    }
}
