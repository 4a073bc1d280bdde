//! The limit on concurrent tests.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::ids::ApplicationId;

use crate::http::error::{ApiError, ErrorCode};

/// The maximum number of concurrent tests of an application.
const MAX_TEST_SENDS: usize = 4;

/// The number of running tests by application. The limit is per application: tests of hanging endpoints do not block
/// other applications' tests.
#[derive(Clone, Default)]
pub struct TestSends(Arc<Mutex<HashMap<ApplicationId, usize>>>);

/// The permit of a running test. Dropping the permit ends the test.
pub(crate) struct TestPermit {
    test_sends: TestSends,
    application: ApplicationId,
}

impl TestSends {
    /// Permits a test of an application, unless the application runs the maximum number of tests.
    pub(crate) fn begin(&self, application: ApplicationId) -> Result<TestPermit, ApiError> {
        let mut running = self.running();
        let own = running.entry(application).or_default();
        if *own >= MAX_TEST_SENDS {
            let message = format!("the application already runs {MAX_TEST_SENDS} tests: wait until a test ends");
            return Err(ApiError::new(ErrorCode::TooManyTests, message).retry_after(5));
        }
        *own += 1;
        Ok(TestPermit { test_sends: self.clone(), application })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<ApplicationId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TestPermit {
    fn drop(&mut self) {
        let mut running = self.test_sends.running();
        if let Entry::Occupied(mut own) = running.entry(self.application) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}
