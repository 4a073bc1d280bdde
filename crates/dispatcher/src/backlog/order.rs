//! Order of drains: applications alternate, and so do the endpoints of an application.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use fanfare_domain::ids::{ApplicationId, EndpointId};

/// The ready backlogs, in the order of drains.
#[derive(Default)]
pub(super) struct Order {
    /// Applications with ready backlogs.
    applications: VecDeque<ApplicationId>,
    ready: HashMap<ApplicationId, Turns>,
    /// Number of the last position.
    last: u64,
}

/// Place of a ready backlog in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    number: u64,
    is_new: bool,
}

/// Ready backlogs of an application, by their numbers.
#[derive(Default)]
struct Turns {
    /// Backlogs without a lease yet, of this process's own making: mostly a few deliveries of healthy endpoints.
    new: BTreeMap<u64, EndpointId>,
    /// Backlogs with earlier leases: mostly many deliveries of endpoints that come back.
    begun: BTreeMap<u64, EndpointId>,
    /// True if the last turn was of a new backlog.
    was_new: bool,
}

impl Order {
    /// Adds a ready backlog behind all others of the application that are as new.
    ///
    /// New backlogs alternate with begun backlogs. A delivery of a healthy endpoint that had to be queued thus waits
    /// for no round of all endpoints that come back. RFC 8290, section 4.2, prefers new flows for the same reason.
    pub(super) fn push(&mut self, application: ApplicationId, endpoint: EndpointId, is_new: bool) -> Position {
        self.last += 1;
        let turns = self.ready.entry(application).or_default();
        if turns.is_empty() {
            self.applications.push_back(application);
        }
        let position = Position { number: self.last, is_new };
        turns.of(position).insert(position.number, endpoint);
        position
    }

    /// Removes a backlog.
    pub(super) fn remove(&mut self, application: ApplicationId, position: Position) {
        let Some(turns) = self.ready.get_mut(&application) else { return };
        turns.of(position).remove(&position.number);
        if turns.is_empty() {
            self.ready.remove(&application);
            self.applications.retain(|other| *other != application);
        }
    }

    /// Takes the next backlog. Applications in `busy` are passed over.
    pub(super) fn next(&mut self, busy: &HashSet<ApplicationId>) -> Option<(ApplicationId, EndpointId)> {
        let at = self.applications.iter().position(|application| !busy.contains(application))?;
        // The applications that were passed over keep their order, behind the others.
        self.applications.rotate_left(at);
        let application = self.applications.pop_front()?;
        let turns = self.ready.get_mut(&application)?;
        let endpoint = turns.next();
        if turns.is_empty() {
            self.ready.remove(&application);
        } else {
            self.applications.push_back(application);
        }
        endpoint.map(|endpoint| (application, endpoint))
    }
}

impl Turns {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.begun.is_empty()
    }

    fn of(&mut self, position: Position) -> &mut BTreeMap<u64, EndpointId> {
        if position.is_new { &mut self.new } else { &mut self.begun }
    }

    fn next(&mut self) -> Option<EndpointId> {
        let is_new = !self.new.is_empty() && (self.begun.is_empty() || !self.was_new);
        self.was_new = is_new;
        let turns = if is_new { &mut self.new } else { &mut self.begun };
        turns.pop_first().map(|(_, endpoint)| endpoint)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    pub(in crate::backlog) fn endpoint(number: u8) -> EndpointId {
        EndpointId::new(Timestamp::UNIX_EPOCH, [number; 10])
    }

    pub(in crate::backlog) fn application(number: u8) -> ApplicationId {
        ApplicationId::new(Timestamp::UNIX_EPOCH, [number; 10])
    }

    fn next(order: &mut Order) -> Option<EndpointId> {
        order.next(&HashSet::new()).map(|(_, endpoint)| endpoint)
    }

    #[test]
    fn new_backlogs_wait_for_no_round_of_the_others() {
        let mut order = Order::default();
        for number in 0..100 {
            order.push(application(1), endpoint(number), false);
        }
        order.push(application(1), endpoint(100), true);
        order.push(application(1), endpoint(101), true);
        let first: Vec<_> = (0..5).filter_map(|_| next(&mut order)).collect();
        assert_eq!(first, [100, 0, 101, 1, 2].map(endpoint));
    }

    #[test]
    fn busy_applications_are_passed_over() {
        let mut order = Order::default();
        let first = order.push(application(1), endpoint(1), true);
        order.push(application(2), endpoint(2), true);
        let busy = HashSet::from([application(1)]);
        assert_eq!(order.next(&busy), Some((application(2), endpoint(2))));
        assert_eq!(order.next(&busy), None);
        order.remove(application(1), first);
        assert_eq!(next(&mut order), None);
    }

    proptest! {
        /// Each backlog is taken once, and waits for at most a round of each application and class.
        #[test]
        fn each_ready_backlog_gets_its_turn(backlogs in prop::collection::vec((0..4u8, any::<bool>()), 1..60)) {
            let mut order = Order::default();
            for (number, (of, is_new)) in backlogs.iter().enumerate() {
                order.push(application(*of), endpoint(number as u8), *is_new);
            }
            let taken: Vec<_> = std::iter::from_fn(|| next(&mut order)).collect();
            prop_assert_eq!(taken.len(), backlogs.len());
            for (number, class) in backlogs.iter().enumerate() {
                let ahead = backlogs[..number].iter().filter(|other| *other == class).count();
                let at = taken.iter().position(|taken| *taken == endpoint(number as u8));
                prop_assert!(at.is_some_and(|at| at < (ahead + 1) * 8), "{:?} for {} ahead", at, ahead);
            }
        }
    }
}
