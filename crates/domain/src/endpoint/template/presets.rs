//! Presets: templates of well-known receivers, to begin with.

use jiff::Timestamp;
use uuid::Uuid;

use crate::ids::EventId;

/// A template to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Name in the API.
    pub name: &'static str,
    /// Display name.
    pub title: &'static str,
    /// What the receiver needs, and its bounds.
    pub note: &'static str,
    /// The template, as JSON text with line breaks.
    pub template: &'static str,
}

/// Acceptance and id of a sample: an event of the first moment of 2026.
pub const SAMPLE_ID: (Timestamp, EventId) =
    (Timestamp::constant(1_767_225_600, 0), EventId(Uuid::from_u128(0x019b_76da_a800_7000_8000_0000_0000_0001)));

/// Event type of the sample.
pub const SAMPLE_TYPE: &str = "order.paid";

/// Data of the sample, as JSON text.
pub const SAMPLE_DATA: &str = include_str!("../../../templates/sample.json");

/// All presets.
pub const PRESETS: [Preset; 5] = [
    Preset {
        name: "slack",
        title: "Slack",
        note: "The URL is the one of an incoming webhook of Slack. Slack takes 3,000 characters in a block: for larger \
               events, name the members that you need, such as {{ data.amount }}.",
        template: include_str!("../../../templates/slack.json"),
    },
    Preset {
        name: "teams",
        title: "Microsoft Teams",
        note: "The URL is the one of a workflow that posts to a channel when a webhook request is received. Teams takes \
               28 KB: for larger events, name the members that you need, such as {{ data.amount }}.",
        template: include_str!("../../../templates/teams.json"),
    },
    Preset {
        name: "discord",
        title: "Discord",
        note: "The URL is the one of a webhook of a channel. Discord takes 4,096 characters in a description: for larger \
               events, name the members that you need, such as {{ data.amount }}.",
        template: include_str!("../../../templates/discord.json"),
    },
    Preset {
        name: "pagerduty",
        title: "PagerDuty",
        note: "The URL is https://events.pagerduty.com/v2/enqueue. Put the integration key of your service in place of \
               YOUR-ROUTING-KEY. Each event opens an incident.",
        template: include_str!("../../../templates/pagerduty.json"),
    },
    Preset {
        name: "zapier",
        title: "Zapier",
        note: "The URL is the one of a Zap with the trigger Catch Hook. Zapier offers each member as a field of its own.",
        template: include_str!("../../../templates/zapier.json"),
    },
];
