//! Changes of an application's own event types and of their schemas.

use std::collections::{HashMap, HashSet};

use crate::event::{
    EventFault, EventType, FaultCode,
    catalogue::EMPTY_SAMPLE,
    schema::{MAX_APPLICATION, MAX_VERSIONS, Schema},
};

/// Maximum number of an application's own event types.
pub const MAX_OWN_TYPES: usize = 1000;

/// The own event types of an application, as far as a change needs them.
#[derive(Debug, Default)]
pub struct KnownTypes {
    /// The types of the change, by name.
    pub types: HashMap<EventType, KnownType>,
    /// Number of all own types.
    pub count: usize,
    /// Sum of [`Schema::size`] of all schemas.
    pub size: usize,
}

/// An own event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownType {
    /// Category in lists.
    pub category: Option<String>,
    /// Explanation for people.
    pub description: Option<String>,
    /// The sample that the application gave, otherwise [`EMPTY_SAMPLE`].
    pub sample: String,
    /// The newest schema.
    pub schema: Option<KnownSchema>,
    /// Sum of [`Schema::size`] of all versions.
    pub size: usize,
}

/// A saved schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSchema {
    /// Number of the version.
    pub version: u32,
    /// Compact JSON.
    pub text: String,
    /// The sample that was generated from the schema.
    pub sample: String,
}

/// A wanted value of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted<T> {
    /// The known value stays.
    Keep,
    /// No value.
    None,
    /// This value.
    Value(T),
}

impl<T: Clone> Wanted<T> {
    fn over(&self, known: Option<&T>) -> Option<T> {
        match self {
            Self::Keep => known.cloned(),
            Self::None => None,
            Self::Value(value) => Some(value.clone()),
        }
    }
}

/// A wanted description of an event type.
#[derive(Debug)]
pub struct WantedType {
    /// Name of the type.
    pub name: EventType,
    /// Category in lists.
    pub category: Wanted<String>,
    /// Explanation for people.
    pub description: Wanted<String>,
    /// The application's own sample, compact JSON. A kept sample that does not fit the schema is dropped.
    pub sample: Wanted<String>,
    /// The schema. [`Wanted::None`] removes all versions.
    pub schema: Wanted<Schema>,
}

/// The effect of a change on an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The type is new.
    Created,
    /// The type is different.
    Changed,
    /// The type stays as it is.
    Unchanged,
    /// The type cannot be described so.
    Refused(EventFault),
}

/// A decided change of an event type.
#[derive(Debug)]
pub struct PlannedType {
    /// Name of the type.
    pub name: EventType,
    /// The effect.
    pub effect: Effect,
    /// The type after the change; `None` if the change is refused.
    pub after: Option<KnownType>,
    /// True if all known versions of the schema are removed.
    pub removes_schemas: bool,
    /// The new version of the schema, with its size.
    pub appends: Option<(KnownSchema, usize)>,
}

/// Decides changes, in order. A refused change has no effect on the others. The caller may hold a lock: the samples of
/// wanted schemas should be made before.
pub fn plan(known: &KnownTypes, wanted: &[WantedType]) -> Vec<PlannedType> {
    let (mut count, mut size) = (known.count, known.size);
    let mut seen = HashSet::new();
    let mut planned = Vec::new();
    for wanted in wanted {
        let before = known.types.get(&wanted.name);
        let decided = if seen.insert(&wanted.name) {
            decide(before, wanted, (count, size))
        } else {
            Err(EventFault::new(FaultCode::InvalidField, "name", "is described twice with different schemas"))
        };
        planned.push(match decided {
            Ok(decided) => {
                count += usize::from(before.is_none());
                size =
                    size + decided.after.as_ref().map_or(0, |after| after.size) - before.map_or(0, |known| known.size);
                decided
            }
            Err(fault) => PlannedType {
                name: wanted.name.clone(),
                effect: Effect::Refused(fault),
                after: None,
                removes_schemas: false,
                appends: None,
            },
        });
    }
    planned
}

/// Decides the change of a type. `sums` are the number of types and the size of schemas before.
fn decide(before: Option<&KnownType>, wanted: &WantedType, sums: (usize, usize)) -> Result<PlannedType, EventFault> {
    let invalid = |field: &'static str, message: &str| EventFault::new(FaultCode::InvalidField, field, message);
    if before.is_none() && sums.0 >= MAX_OWN_TYPES {
        return Err(invalid("name", &format!("is beyond the {MAX_OWN_TYPES} own event types: remove a type")));
    }
    let known = before.and_then(|before| before.schema.as_ref());
    let removes_schemas = wanted.schema == Wanted::None && known.is_some();
    let appends = match &wanted.schema {
        Wanted::Value(schema) if known.is_none_or(|known| !schema.is_same(&Schema::stored(known.text.clone()))) => {
            let version = known.map_or(1, |known| known.version + 1);
            if version > MAX_VERSIONS {
                let message = format!(
                    "would be version {version}, and a type has at most {MAX_VERSIONS}: remove the schemas by null, or \
                     describe another type"
                );
                return Err(invalid("schema", &message));
            }
            let appended = KnownSchema { version, text: schema.text().to_owned(), sample: schema.sample().to_owned() };
            Some((appended, schema.size()))
        }
        _ => None,
    };
    let kept_size = if removes_schemas { 0 } else { before.map_or(0, |before| before.size) };
    let size = kept_size + appends.as_ref().map_or(0, |(_, size)| *size);
    if appends.is_some() && sums.1 + size - before.map_or(0, |before| before.size) > MAX_APPLICATION {
        let message = format!(
            "is beyond the {MAX_APPLICATION} bytes of all schemas of the application: remove types, or schemas by null"
        );
        return Err(invalid("schema", &message));
    }
    let schema = match &appends {
        Some((appended, _)) => Some(appended),
        None => known.filter(|_| !removes_schemas),
    };
    let after = KnownType {
        category: wanted.category.over(before.and_then(|before| before.category.as_ref())),
        description: wanted.description.over(before.and_then(|before| before.description.as_ref())),
        sample: sample(before, wanted, schema)?,
        schema: schema.cloned(),
        size,
    };
    let effect = match before {
        None => Effect::Created,
        Some(before) if *before == after => Effect::Unchanged,
        Some(_) => Effect::Changed,
    };
    Ok(PlannedType { name: wanted.name.clone(), effect, after: Some(after), removes_schemas, appends })
}

/// The application's own sample after a change, in which the newest schema is `schema`. A generated sample is not kept
/// as an own sample.
fn sample(before: Option<&KnownType>, wanted: &WantedType, schema: Option<&KnownSchema>) -> Result<String, EventFault> {
    let given = wanted.sample.over(before.map(|before| &before.sample)).unwrap_or_else(|| EMPTY_SAMPLE.to_owned());
    let Some(schema) = schema else { return Ok(given) };
    if given == EMPTY_SAMPLE || given == schema.sample {
        return Ok(EMPTY_SAMPLE.to_owned());
    }
    let checked = match (&wanted.schema, &wanted.sample) {
        // Compiled already: the caller may hold a lock.
        (Wanted::Value(schema), _) => schema.check(&given, true),
        // Both are unchanged, and fit.
        (_, Wanted::Keep) => Ok(()),
        _ => Schema::stored(schema.text.clone()).check(&given, true),
    };
    match (checked, &wanted.sample) {
        (Ok(()), _) => Ok(given),
        (Err(_), Wanted::Keep) => Ok(EMPTY_SAMPLE.to_owned()),
        (Err(mismatch), _) => {
            let place = if mismatch.pointer.is_empty() { "the top" } else { &mismatch.pointer };
            let message = format!("does not fit the schema, at {place}: {}", mismatch.reason);
            Err(EventFault::new(FaultCode::DataMismatch, "sample", &message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, schema: &str) -> WantedType {
        WantedType {
            name: EventType::parse(name).expect("a type"),
            category: Wanted::Keep,
            description: Wanted::Value("Text".to_owned()),
            sample: Wanted::None,
            schema: match schema {
                "" => Wanted::Keep,
                "null" => Wanted::None,
                schema => Wanted::Value(Schema::parse(schema).expect("a schema")),
            },
        }
    }

    /// Applies planned changes.
    fn applied(known: &mut KnownTypes, planned: Vec<PlannedType>) {
        for planned in planned {
            let Some(after) = planned.after else { continue };
            known.size = known.size + after.size - known.types.get(&planned.name).map_or(0, |known| known.size);
            known.types.insert(planned.name, after);
            known.count = known.types.len();
        }
    }

    fn change(known: &mut KnownTypes, wanted: WantedType) -> (Effect, Option<u32>) {
        let planned = plan(known, &[wanted]);
        let version = planned[0].after.as_ref().and_then(|after| Some(after.schema.as_ref()?.version));
        let effect = planned[0].effect.clone();
        applied(known, planned);
        (effect, version)
    }

    fn refusal(known: &KnownTypes, wanted: WantedType) -> String {
        match plan(known, &[wanted]).remove(0).effect {
            Effect::Refused(fault) => fault.to_string(),
            effect => panic!("{effect:?}"),
        }
    }

    #[test]
    fn another_schema_is_a_new_version_and_the_same_schema_is_none() {
        let mut known = KnownTypes::default();
        let mut change = |schema: &str| change(&mut known, wanted("a", schema));
        assert_eq!(change(r#"{"type":"number"}"#), (Effect::Created, Some(1)));
        assert_eq!(change(r#"{ "type": "number" }"#), (Effect::Unchanged, Some(1)));
        assert_eq!(change(""), (Effect::Unchanged, Some(1)));
        assert_eq!(change(r#"{"type":"string"}"#), (Effect::Changed, Some(2)));
        assert_eq!(change(r#"{"type":"number"}"#), (Effect::Changed, Some(3)), "an older schema is a new version");
        assert_eq!(change("null"), (Effect::Changed, None));
        assert_eq!(change("null"), (Effect::Unchanged, None));
        for number in 1..=MAX_VERSIONS {
            assert_eq!(change(&format!("{{\"minimum\":{number}}}")), (Effect::Changed, Some(number)));
        }
        assert_eq!(known.size, known.types.values().map(|known| known.size).sum::<usize>());
        assert!(refusal(&known, wanted("a", "{}")).contains("at most 20"));
    }

    #[test]
    fn types_and_schemas_of_an_application_have_a_bound() {
        let full = KnownTypes { count: MAX_OWN_TYPES, ..KnownTypes::default() };
        assert!(refusal(&full, wanted("a", "")).contains("1000"));
        let large = KnownTypes { size: MAX_APPLICATION - 10, ..KnownTypes::default() };
        assert!(refusal(&large, wanted("a", r#"{"type":"number"}"#)).contains("all schemas"));
        assert!(matches!(plan(&large, &[wanted("a", "{}")])[0].effect, Effect::Created));
        let twice = plan(&KnownTypes::default(), &[wanted("a", "{}"), wanted("a", ""), wanted("b", "")]);
        let effects: Vec<_> = twice.iter().map(|planned| matches!(planned.effect, Effect::Created)).collect();
        assert_eq!(effects, [true, false, true]);
    }

    #[test]
    fn a_given_sample_must_fit_and_a_generated_sample_is_not_an_own_sample() {
        let mut known = KnownTypes::default();
        let with = |sample: Wanted<String>, schema: &str| WantedType { sample, ..wanted("a", schema) };
        let given = |sample: &str| Wanted::Value(sample.to_owned());
        let schema = r#"{"properties":{"n":{"type":"number"}}}"#;
        let refused = refusal(&known, with(given(r#"{"n":"x"}"#), schema));
        assert_eq!(refused, r#"`sample` does not fit the schema, at /n: "x" is not of type "number""#);
        change(&mut known, with(given(r#"{"n":7}"#), schema));
        let sample = |known: &KnownTypes| known.types.values().next().expect("the type").sample.clone();
        assert_eq!(sample(&known), r#"{"n":7}"#);
        assert!(refusal(&known, with(given("{\"n\":null}"), "")).contains("/n"));
        change(&mut known, with(Wanted::Keep, r#"{"properties":{"n":{"type":"string"}}}"#));
        assert_eq!(sample(&known), EMPTY_SAMPLE, "a kept sample that no longer fits is dropped");
        change(&mut known, with(given(r#"{"n":"text"}"#), ""));
        assert_eq!(sample(&known), EMPTY_SAMPLE, "the generated sample");
    }
}
