//! Types of operational events, with descriptions, schemas and samples.

use serde_json::{Map, Value, json};

use crate::event::{
    EventFault, EventType,
    description::{Wanted, WantedType},
    schema::Schema,
};

/// All types.
pub const TYPES: [&str; 10] = [
    "fanfare.endpoint.disabled",
    "fanfare.endpoint.enabled",
    "fanfare.endpoint.failing",
    "fanfare.endpoint.breaker_opened",
    "fanfare.endpoint.backlog_near_limit",
    "fanfare.endpoint.held_near_limit",
    "fanfare.endpoint.recovered",
    "fanfare.endpoint.giving_up",
    "fanfare.messages.parked",
    "fanfare.replay.finished",
];

/// Category in lists of event types.
pub const CATEGORY: &str = "Fanfare";

/// A described type.
#[derive(Debug, Clone)]
pub struct Described {
    /// Name of the type.
    pub name: &'static str,
    /// Explanation for people.
    pub description: &'static str,
    /// JSON Schema of the data.
    pub schema: Value,
    /// An example of the data.
    pub sample: Value,
}

/// All types, in the order of [`TYPES`].
pub fn described() -> Vec<Described> {
    TYPES.into_iter().map(describe).collect()
}

/// The types as own event types of an application.
///
/// # Errors
/// If a type or schema of this file is invalid.
pub fn wanted() -> Result<Vec<WantedType>, EventFault> {
    let wanted = |described: Described| {
        let schema = Schema::parse(&described.schema.to_string())
            .map_err(|fault| EventFault::new(crate::event::FaultCode::InvalidField, "schema", &fault.to_string()))?;
        Ok(WantedType {
            name: EventType::parse(described.name)?,
            category: Wanted::Value(CATEGORY.to_owned()),
            description: Wanted::Value(described.description.to_owned()),
            sample: Wanted::Value(described.sample.to_string()),
            schema: Wanted::Value(schema),
        })
    };
    described().into_iter().map(wanted).collect()
}

fn describe(name: &'static str) -> Described {
    let endpoint = |description, condition, figures| of_endpoint(name, description, condition, figures);
    match name {
        "fanfare.endpoint.disabled" => endpoint(
            "A webhook was disabled: its deliveries are skipped.",
            "disabled",
            vec![member("reason", json!({ "type": "string" }), json!("endpoint_gone"), false)],
        ),
        "fanfare.endpoint.enabled" => {
            endpoint("A disabled webhook was enabled or paused.", "disabled", vec![because(&["recovered", "paused"])])
        }
        "fanfare.endpoint.failing" => endpoint(
            "Each attempt to a webhook has failed for an hour.",
            "failing",
            vec![member("cause", json!({ "type": "string" }), json!("503"), false)],
        ),
        "fanfare.endpoint.breaker_opened" => endpoint(
            "The breaker of a webhook has been open for a minute: only probes are sent, and deliveries wait.",
            "breaker_open",
            vec![member("failures", whole(), json!(20), true)],
        ),
        "fanfare.endpoint.backlog_near_limit" => endpoint(
            "The first waiting delivery of a webhook expires within an hour.",
            "backlog_near_limit",
            vec![member("expires_at", moment(), json!("2026-11-28T15:00:00Z"), true)],
        ),
        "fanfare.endpoint.held_near_limit" => endpoint(
            "The deliveries held for a paused webhook have reached four fifths of their number or of their time.",
            "held_near_limit",
            vec![
                member("held", whole(), json!(80_000), true),
                member("max_held", whole(), json!(100_000), true),
                member("held_until", moment(), json!("2026-12-05T14:00:00Z"), true),
            ],
        ),
        "fanfare.endpoint.recovered" => endpoint(
            "A told condition of a webhook has been gone for ten minutes.",
            "failing",
            vec![because(&["recovered", "paused", "disabled", "deleted"])],
        ),
        "fanfare.endpoint.giving_up" => endpoint(
            "Deliveries to a webhook are given up. The next event follows after an hour without any.",
            "giving_up",
            vec![
                member("count", whole(), json!(3), true),
                member("reasons", counts(), json!({ "attempts_exhausted": 3 }), true),
                member("first_delivery", json!({ "type": "string" }), json!("dlv_01kb3z8wc7f0a9r5w3v6q2x4m1"), true),
            ],
        ),
        "fanfare.messages.parked" => parked(name),
        _ => replay(name),
    }
}

/// A member of the data: name, schema, example, and whether each event has the member.
type Member = (&'static str, Value, Value, bool);

fn member(name: &'static str, schema: Value, example: Value, is_required: bool) -> Member {
    (name, schema, example, is_required)
}

fn whole() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn counts() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": "integer", "minimum": 1 } })
}

fn because(reasons: &[&str]) -> Member {
    member("because", json!({ "enum": reasons }), json!(reasons[0]), true)
}

/// An example of an application, and its schema.
fn application() -> (Value, Value) {
    let id = json!({ "type": "string" });
    let schema = json!({ "type": "object", "properties": { "id": id, "name": { "type": "string" } }, "required": ["id", "name"] });
    (schema, json!({ "id": "app_01kb3z8wc7f0a9r5w3v6q2x4m1", "name": "Shop" }))
}

fn of_endpoint(
    name: &'static str,
    description: &'static str,
    condition: &'static str,
    figures: Vec<Member>,
) -> Described {
    let (application_schema, application) = application();
    let webhook_schema = json!({
        "type": "object",
        "properties": { "id": { "type": "string" }, "name": { "type": "string" }, "host": { "type": "string" } },
        "required": ["id", "host"]
    });
    let webhook = json!({ "id": "wh_01kb3z8wc7f0a9r5w3v6q2x4m1", "name": "Orders", "host": "shop.example" });
    let condition_schema = match name {
        "fanfare.endpoint.recovered" => {
            json!({ "enum": ["failing", "breaker_open", "backlog_near_limit", "held_near_limit"] })
        }
        _ => json!({ "const": condition }),
    };
    let mut members = vec![
        member("condition", condition_schema, json!(condition), true),
        member("application", application_schema, application, true),
        member("webhook", webhook_schema, webhook, true),
    ];
    members.extend(figures);
    of_members(name, description, members)
}

fn parked(name: &'static str) -> Described {
    let (schema, application) = application();
    let schema = json!({ "anyOf": [schema, { "type": "null" }] });
    let members = vec![
        member("condition", json!({ "const": "messages_parked" }), json!("messages_parked"), true),
        member("application", schema, application, true),
        member("count", whole(), json!(2), true),
        member("reasons", counts(), json!({ "malformed_json": 2 }), true),
    ];
    let description = "Messages of publishers were parked. The next event follows after an hour without any. \
                       `application` is null for messages of no known application.";
    of_members(name, description, members)
}

fn replay(name: &'static str) -> Described {
    let (schema, application) = application();
    let replay_schema = json!({
        "type": "object",
        "properties": {
            "id": { "type": "string" }, "state": { "enum": ["done", "cancelled"] },
            "events": whole(), "deliveries": whole(), "created_at": moment()
        },
        "required": ["id", "state", "events", "deliveries", "created_at"]
    });
    let replay = json!({
        "id": "rpl_01kb3z8wc7f0a9r5w3v6q2x4m1", "state": "done", "events": 1200, "deliveries": 1180,
        "created_at": "2026-11-28T13:00:00Z"
    });
    let members = vec![
        member("condition", json!({ "const": "replay_finished" }), json!("replay_finished"), true),
        member("application", schema, application, true),
        member("replay", replay_schema, replay, true),
    ];
    of_members(name, "A replay is done, or was cancelled.", members)
}

/// Adds the members of all types.
fn of_members(name: &'static str, description: &'static str, mut members: Vec<Member>) -> Described {
    let link = "https://fanfare.example/console/app_01kb3z8wc7f0a9r5w3v6q2x4m1";
    members.push(member("since", moment(), json!("2026-11-28T14:00:00Z"), true));
    members.push(member("changes", json!({ "type": "integer", "minimum": 1 }), json!(1), true));
    members.push(member("link", json!({ "type": "string" }), json!(link), false));
    let required: Vec<_> = members.iter().filter(|member| member.3).map(|member| member.0).collect();
    let properties: Map<_, _> = members.iter().map(|(name, schema, ..)| ((*name).to_owned(), schema.clone())).collect();
    let sample = members.iter().map(|(name, _, example, _)| ((*name).to_owned(), example.clone()));
    Described {
        name,
        description,
        schema: json!({ "type": "object", "properties": properties, "required": required }),
        sample: Value::Object(sample.collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::{
        ids::{ApplicationId, DeliveryId, EndpointId, ReplayId},
        operational::{
            Because, Change, Condition, EventData, Figures, NamedApplication, NamedWebhook, ReplayFigures,
            is_operational,
        },
    };

    fn figures(condition: Condition) -> Figures {
        let none = Figures::default();
        match condition {
            Condition::Disabled => Figures { reason: Some("endpoint_gone".to_owned()), ..none },
            Condition::Failing => Figures { cause: Some("503".to_owned()), ..none },
            Condition::BreakerOpen => Figures { failures: Some(20), ..none },
            Condition::BacklogNearLimit => Figures { expires_at: Some(Timestamp::UNIX_EPOCH), ..none },
            Condition::HeldNearLimit => {
                Figures { held: Some(8), max_held: Some(10), held_until: Some(Timestamp::UNIX_EPOCH), ..none }
            }
            Condition::GivingUp => Figures {
                count: Some(1),
                reasons: BTreeMap::from([("expired".to_owned(), 1)]),
                first_delivery: Some(DeliveryId(Uuid::nil())),
                ..none
            },
            Condition::MessagesParked => {
                Figures { count: Some(1), reasons: BTreeMap::from([("not_an_object".to_owned(), 1)]), ..none }
            }
            Condition::ReplayFinished => Figures {
                replay: Some(ReplayFigures {
                    id: ReplayId(Uuid::nil()),
                    state: "done".to_owned(),
                    events: 1,
                    deliveries: 1,
                    created_at: Timestamp::UNIX_EPOCH,
                }),
                ..none
            },
        }
    }

    #[test]
    fn samples_and_all_data_fit_the_schemas_of_their_types() {
        let wanted = wanted().expect("the catalogue");
        let schema = |name: &str| {
            let found = wanted.iter().find(|wanted| wanted.name.as_str() == name);
            let Some(WantedType { schema: Wanted::Value(schema), .. }) = found else { panic!("no schema of {name}") };
            schema
        };
        for described in described() {
            assert_eq!(schema(described.name).check(&described.sample.to_string(), true), Ok(()), "{}", described.name);
        }
        let mut told = BTreeSet::new();
        for condition in Condition::ALL {
            for change in [Change::Begins, Change::Ends] {
                let Some(name) = condition.event_type(change) else { continue };
                let is_of_endpoint = name.starts_with("fanfare.endpoint.");
                let data = EventData {
                    condition: condition.as_str(),
                    application: Some(NamedApplication { id: ApplicationId(Uuid::nil()), name: "Shop" }),
                    webhook: is_of_endpoint.then_some(NamedWebhook {
                        id: EndpointId(Uuid::nil()),
                        name: None,
                        host: "shop.example",
                    }),
                    since: Timestamp::UNIX_EPOCH,
                    changes: 1,
                    figures: &if change == Change::Begins {
                        figures(condition)
                    } else {
                        Figures { because: Some(Because::Recovered), ..Figures::default() }
                    },
                    link: None,
                };
                let data = data.to_json().expect("JSON");
                assert_eq!(schema(name).check(&data, true), Ok(()), "{name}: {data}");
                told.insert(name);
            }
        }
        assert_eq!(told, BTreeSet::from(TYPES), "each type is told, and each told type is described");
    }

    #[test]
    fn only_the_described_types_are_reserved() {
        let is = |name: &str| is_operational(&EventType::parse(name).expect("a type"));
        assert!(TYPES.into_iter().all(is));
        assert!(!is("fanfare.endpoint.other") && !is("fanfare.digest") && !is("endpoint.disabled"));
    }
}
