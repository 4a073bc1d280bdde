//! The list of faults, and the permitted losses of each.

use std::{ops::Range, path::PathBuf, time::Duration};

use fanfare_tests::{
    ledger::{Allowed, Missing},
    receiver::Behaviour,
    servers::{egress_proxy::Serves, name_server::Answers},
};

use rand::{RngExt, rngs::StdRng};

use crate::{
    disk,
    harm::{DEATHS, PLACES_BESIDE},
    processes::ENDED,
    scene::PERMITS,
    script::Extent,
};

/// Length of a fault, in milliseconds.
const USUAL: Range<u64> = 1000..4000;

/// Length of a stop, in milliseconds: shorter than a lease, and longer.
const BELOW_LEASE: Range<u64> = 2000..10_000;
const BEYOND_LEASE: Range<u64> = 16_000..60_000;

/// The part hit by a fault. A mix has at most one fault of each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Ingests,
    Dispatchers,
    Broker,
    /// The nodes of a cluster. Other faults have a single node, so that a fault of nodes happens alone.
    Nodes,
    Database,
    ToBroker,
    ToDatabase,
    /// The name server and the egress proxy of the dispatchers.
    Egress,
    Publishers,
    Receivers,
    /// All processes, which begin as processes of the previous release. A fault of the release happens alone.
    Release,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Kill,
    KillAll,
    Stop,
    Roll,
    Scale(Ending),
    WrongClock,
    EarlierClock,
    StopLog,
    Restart,
    CloseConnections,
    MemoryAlarm,
    DiskAlarm,
    Purge,
    LoseData,
    OlderCopy,
    LoseNode,
    RollNodes,
    LoseMajority,
    TerminateBackends,
    ReadOnly,
    FillDisk(Full),
    HalfOpen,
    Silence,
    Delay,
    Late,
    Reset,
    Resolve(Answers),
    Tunnel(Serves),
    Publish(Harm),
    FewFiles,
    Poison,
    Answer(Behaviour),
    RollForward,
    RollBack,
}

/// The end of superfluous dispatchers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Terminate,
    Kill,
}

/// The files of the database without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Data,
    Log,
}

/// Messages of a harmful publisher.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Harm {
    /// Short strings that are not UTF-8.
    Malformed,
    /// Bodies of 4 MiB.
    Large,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) part: Part,
    pub(crate) act: Act,
}

const fn fault(name: &'static str, part: Part, act: Act, about: &'static str) -> Fault {
    Fault { name, about, part, act }
}

use Act::{
    Answer, CloseConnections, Delay, DiskAlarm, EarlierClock, FewFiles, FillDisk, HalfOpen, Kill, KillAll, Late,
    LoseData, LoseMajority, LoseNode, MemoryAlarm, OlderCopy, Poison, Publish, Purge, ReadOnly, Reset, Resolve,
    Restart, Roll, RollBack, RollForward, RollNodes, Scale, Silence, Stop, StopLog, TerminateBackends, Tunnel,
    WrongClock,
};
use Part::{
    Broker, Database, Dispatchers, Egress, Ingests, Nodes, Publishers, Receivers, Release, ToBroker, ToDatabase,
};

pub(crate) const FAULTS: &[Fault] = &[
    fault("kill-ingest", Ingests, Kill, "kill -9 of one of two ingests"),
    fault("kill-ingests", Ingests, KillAll, "kill -9 of both ingests"),
    fault("kill-dispatcher", Dispatchers, Kill, "kill -9 of one of two dispatchers"),
    fault("kill-dispatchers", Dispatchers, KillAll, "kill -9 of both dispatchers"),
    fault("kill-broker", Broker, Kill, "kill -9 of RabbitMQ"),
    fault("kill-database", Database, Kill, "kill -9 of PostgreSQL"),
    fault("stop-ingest", Ingests, Stop, "SIGSTOP of one of two ingests for up to a minute, then SIGCONT"),
    fault("stop-dispatcher", Dispatchers, Stop, "SIGSTOP of one of two dispatchers for up to a minute, then SIGCONT"),
    fault("stop-broker", Broker, Stop, "SIGSTOP of RabbitMQ for up to a minute, then SIGCONT"),
    fault("stop-database", Database, Stop, "SIGSTOP of all of PostgreSQL for up to a minute, then SIGCONT"),
    fault("roll-ingests", Ingests, Roll, "SIGTERM of each ingest, after a new one was started"),
    fault("roll-dispatchers", Dispatchers, Roll, "SIGTERM of each dispatcher, after a new one was started"),
    fault("scale-dispatchers", Dispatchers, Scale(Ending::Terminate), "four dispatchers, SIGTERM of three, ten times"),
    fault("scale-kill", Dispatchers, Scale(Ending::Kill), "four dispatchers, kill -9 of three, ten times"),
    fault("restart-broker", Broker, Restart, "RabbitMQ is stopped properly and started again"),
    fault("restart-database", Database, Restart, "PostgreSQL is stopped properly and started again"),
    fault("close-connections", Broker, CloseConnections, "RabbitMQ closes all connections"),
    fault("memory-alarm", Broker, MemoryAlarm, "RabbitMQ's memory alarm blocks publishers"),
    fault("disk-alarm", Broker, DiskAlarm, "RabbitMQ's disk alarm blocks publishers"),
    fault("purge-queues", Broker, Purge, "all of Fanfare's queues are purged, several times"),
    fault("lose-broker", Broker, LoseData, "kill -9 of RabbitMQ, and its data folder is lost"),
    fault("older-broker", Broker, OlderCopy, "RabbitMQ is replaced by a copy that is some seconds old"),
    fault("kill-node", Nodes, LoseNode, "kill -9 of one of three nodes of RabbitMQ; publishing goes on without it"),
    fault("roll-nodes", Nodes, RollNodes, "kill -9 of one of three nodes after the other, each back before the next"),
    fault("two-nodes", Nodes, LoseMajority, "kill -9 of two of three nodes, which leaves no majority"),
    fault("terminate-backends", Database, TerminateBackends, "PostgreSQL ends all sessions, several times"),
    fault("read-only", Database, ReadOnly, "PostgreSQL is read-only"),
    fault("full-disk-database", Database, FillDisk(Full::Data), "PostgreSQL's disk is full"),
    fault("full-disk-log", Database, FillDisk(Full::Log), "the same, and there is no room for its write-ahead log"),
    fault("older-database", Database, OlderCopy, "PostgreSQL is replaced by a copy that is some seconds old"),
    fault("earlier-database", Database, EarlierClock, "PostgreSQL restarts two hours earlier, as after a failover"),
    fault("half-open-broker", ToBroker, HalfOpen, "nothing passes to and from RabbitMQ; then resets"),
    fault("half-open-database", ToDatabase, HalfOpen, "nothing passes to and from PostgreSQL; then resets"),
    fault("silent-broker", ToBroker, Silence, "connections to RabbitMQ are silent for ever; new ones work"),
    fault("silent-database", ToDatabase, Silence, "connections to PostgreSQL are silent for ever; new ones work"),
    fault("slow-broker", ToBroker, Delay, "everything to and from RabbitMQ is late"),
    fault("late-confirms", ToBroker, Late, "everything to and from RabbitMQ is 3 s late: a confirm takes 6 s"),
    fault("slow-database", ToDatabase, Delay, "everything to and from PostgreSQL is late"),
    fault("reset-broker", ToBroker, Reset, "connections to RabbitMQ are reset within a frame, several times"),
    fault("reset-database", ToDatabase, Reset, "connections to PostgreSQL are reset within a message, several times"),
    fault("clock-of-ingest", Ingests, WrongClock, "the clock of one of two ingests is wrong"),
    fault("clock-of-dispatcher", Dispatchers, WrongClock, "the clock of one of two dispatchers is wrong"),
    fault("log-stops", Dispatchers, StopLog, "nothing reads the logs of both dispatchers"),
    fault("resolver-away", Egress, Resolve(Answers::Nothing), "the name server answers nobody"),
    fault("resolver-fails", Egress, Resolve(Answers::Failures), "the name server answers SERVFAIL"),
    fault("proxy-away", Egress, Tunnel(Serves::Nobody), "the egress proxy closes all connections"),
    fault("proxy-fails", Egress, Tunnel(Serves::Errors), "the egress proxy answers 503"),
    fault("proxy-refuses", Egress, Tunnel(Serves::Strangers), "the egress proxy refuses the credentials"),
    fault("malformed-stream", Publishers, Publish(Harm::Malformed), "200 messages a second are not UTF-8"),
    fault("large-bodies", Publishers, Publish(Harm::Large), "20 bodies of 4 MiB a second"),
    fault("few-files", Dispatchers, FewFiles, "256 open files, and 200 endpoints of another application hang"),
    fault("poison", Dispatchers, Poison, "a delivery kills both dispatchers again and again, beside 50 others"),
    fault("receivers-hang", Receivers, Answer(Behaviour::Hang), "receivers take requests and never answer"),
    fault("receivers-reset", Receivers, Answer(Behaviour::Reset), "receivers take requests and close the connection"),
    fault("receivers-drip", Receivers, Answer(Behaviour::Drip), "receivers answer a byte a second"),
    fault("receivers-endless", Receivers, Answer(Behaviour::EndlessBody), "receivers answer a body without end"),
    fault("receivers-bomb", Receivers, Answer(Behaviour::Bomb), "receivers answer a compressed bomb"),
    fault("roll-back", Release, RollBack, "the previous release is replaced by this release, and comes back"),
    fault("roll-release", Release, RollForward, "the previous release is replaced by this release"),
];

impl Fault {
    /// The permitted losses of the fault.
    pub(crate) fn allowed(&self, extent: Extent) -> Allowed {
        let (repeats, unknown) = match (self.part, self.act) {
            (Dispatchers, Kill) => (PERMITS, i64::MAX),
            (Dispatchers, KillAll) => (2 * PERMITS, i64::MAX),
            (Dispatchers, Stop) => (PERMITS, i64::MAX),
            (Dispatchers, Scale(Ending::Kill)) => (extent.scalings * ENDED * PERMITS, i64::MAX),
            (Dispatchers, Poison) => (DEATHS * 2 * PLACES_BESIDE, i64::MAX),
            // The silence outlasts the lease of a delivery, in both dispatchers.
            (ToDatabase, Silence) => (2 * PERMITS, i64::MAX),
            // At the return of the clock, the leases of all attempts in flight have ended.
            (Database, EarlierClock) => (2 * PERMITS, i64::MAX),
            (Database, OlderCopy) => (usize::MAX, i64::MAX),
            _ => (0, 0),
        };
        let missing = match (self.part, self.act) {
            (Broker, Purge | LoseData | OlderCopy) => Missing::Untaken,
            (Database, OlderCopy) => Missing::Rows,
            _ => Missing::Nothing,
        };
        Allowed { repeats, unknown, missing }
    }

    /// The time from the fault to its end, drawn unless the extent decides.
    pub(crate) fn length(&self, extent: Extent, draw: &mut StdRng) -> Duration {
        if let Some(length) = extent.length {
            return length;
        }
        let range = match self.act {
            Stop if draw.random() => BELOW_LEASE,
            Stop => BEYOND_LEASE,
            _ => USUAL,
        };
        Duration::from_millis(draw.random_range(range))
    }

    pub(crate) fn happens_alone(&self) -> bool {
        // A poison needs all servers until its delivery is given up.
        matches!(self.part, Nodes | Release) || matches!(self.act, Poison)
    }

    /// The reason why this machine cannot have the fault.
    pub(crate) fn left_out(&self) -> Option<String> {
        match self.act {
            WrongClock | EarlierClock if clock_library().is_none() => Some("libfaketime is not installed".to_owned()),
            FillDisk(_) if !*disk::CAN_BE_HAD => {
                Some("a small file system cannot be mounted: that takes root".to_owned())
            }
            _ => None,
        }
    }
}

/// The needs of faults. Faults with the same needs can share a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Needs {
    /// True if the processes begin as processes of the previous release.
    pub(crate) previous: bool,
    /// The number of broker nodes.
    pub(crate) nodes: usize,
    /// True if requests go through the scene's egress proxy, to a name that the scene's name server knows.
    pub(crate) egress: bool,
}

impl Needs {
    pub(crate) fn of(faults: &[Fault]) -> Self {
        let has = |part: Part| faults.iter().any(|fault| fault.part == part);
        Self { previous: has(Release), nodes: if has(Nodes) { 3 } else { 1 }, egress: has(Egress) }
    }
}

/// The sum of the permitted losses of all faults.
pub(crate) fn allowed(faults: &[Fault], extent: Extent) -> Allowed {
    faults.iter().map(|fault| fault.allowed(extent)).fold(Allowed::default(), |sum, permitted| Allowed {
        repeats: sum.repeats.saturating_add(permitted.repeats),
        unknown: sum.unknown.saturating_add(permitted.unknown),
        missing: sum.missing.max(permitted.missing),
    })
}

/// The path of libfaketime, which changes the clock of a process.
pub(crate) fn clock_library() -> Option<PathBuf> {
    let named = std::env::var_os("FAKETIME_LIBRARY").map(PathBuf::from);
    let machine = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    let usual = [&machine, "/usr/lib64/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1"];
    named.into_iter().chain(usual.map(PathBuf::from)).find(|path| path.exists())
}
