//! The picker of event types: groups of types, and the way from the choice to subscriptions and back. All is pure.

use std::collections::BTreeSet;

use fanfare_api::routes::event_types::DescribedType;

use crate::frame::form::Fields;

/// The most types with a box. Further types are written as text.
const MAX_TYPES: usize = 200;

/// Largest sum of the samples, and of the descriptions, on a page, in bytes. The page of the event types has all.
const MAX_SAMPLES: usize = 12 * 1024;
const MAX_DESCRIPTIONS: usize = 12 * 1024;

/// An event type of the picker.
pub(crate) struct Choosable {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) sample: Option<String>,
    pub(crate) is_chosen: bool,
}

/// Event types of a category, or of a common prefix.
pub(crate) struct Group {
    pub(crate) title: String,
    /// Subscription to all present and future types of the group, such as `points.*`; `None` without a common prefix.
    pub(crate) prefix: Option<String>,
    pub(crate) is_whole: bool,
    pub(crate) types: Vec<Choosable>,
}

impl Group {
    /// Number of chosen types.
    pub(crate) fn chosen(&self) -> usize {
        if self.is_whole { self.types.len() } else { self.types.iter().filter(|choosable| choosable.is_chosen).count() }
    }

    /// True if the group is shown open.
    pub(crate) fn is_open(&self) -> bool {
        self.chosen() > 0
    }
}

/// The picker with a choice.
pub(crate) struct Picker {
    pub(crate) is_all: bool,
    pub(crate) groups: Vec<Group>,
    pub(crate) types: usize,
    /// Number of types without a box.
    pub(crate) more: usize,
}

impl Picker {
    /// Shows the choice of a form.
    pub(crate) fn new(described: &[DescribedType], fields: &Fields) -> Self {
        let (mut samples, mut descriptions) = (MAX_SAMPLES, MAX_DESCRIPTIONS);
        let mut groups: Vec<Group> = Vec::new();
        for described in described.iter().take(MAX_TYPES) {
            let sample = described.sample.as_ref().map(|sample| sample.get().trim().to_owned());
            let sample = sample.filter(|sample| fits(sample, &mut samples));
            let description = described.description.clone().filter(|text| fits(text, &mut descriptions));
            let choosable = Choosable {
                is_chosen: fields.has("events", &described.name),
                description: description.unwrap_or_default(),
                name: described.name.clone(),
                sample,
            };
            let title = title(described.category.as_deref(), &described.name);
            match groups.iter_mut().find(|group| group.title == title) {
                Some(group) => group.types.push(choosable),
                None => groups.push(Group { title, prefix: None, is_whole: false, types: vec![choosable] }),
            }
        }
        for group in &mut groups {
            group.prefix = common_prefix(group.types.iter().map(|choosable| choosable.name.as_str()));
            let boxed = group.prefix.as_deref().is_some_and(|prefix| fields.has("events", prefix));
            group.is_whole = boxed || fields.has("group", &group.title);
        }
        Self {
            is_all: fields.has("which", "all"),
            groups,
            types: described.len(),
            more: described.len().saturating_sub(MAX_TYPES),
        }
    }

    /// Number of chosen types.
    pub(crate) fn chosen(&self) -> usize {
        if self.is_all { self.types } else { self.groups.iter().map(Group::chosen).sum() }
    }
}

/// True if the text fits into the bytes that are left, which become fewer.
pub(crate) fn fits(text: &str, left: &mut usize) -> bool {
    let rest = left.checked_sub(text.len());
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

/// The group of a type: the category, else the first word of the name.
fn title(category: Option<&str>, name: &str) -> String {
    match (category.filter(|category| !category.trim().is_empty()), name.split_once('.')) {
        (Some(category), _) => category.to_owned(),
        (None, Some((first, _))) => format!("{first}.*"),
        (None, None) => "Other events".to_owned(),
    }
}

/// The subscription to the first word that all names share, such as `points.*`.
fn common_prefix<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    let first = names.next()?.split_once('.')?.0;
    let is_shared = names.all(|name| name.split_once('.').is_some_and(|(word, _)| word == first));
    is_shared.then(|| format!("{first}.*"))
}

/// The subscriptions of a form, each once, in the order of the form.
pub(crate) fn subscriptions(described: &[DescribedType], fields: &Fields) -> Vec<String> {
    if fields.has("which", "all") {
        return vec!["*".to_owned()];
    }
    let whole =
        |described: &&DescribedType| fields.has("group", &title(described.category.as_deref(), &described.name));
    let others = fields.value("others").split([',', ' ', '\n', '\r', '\t']).map(str::to_owned);
    let chosen = fields.values("events").into_iter().map(str::to_owned);
    let of_groups = described.iter().filter(whole).map(|described| described.name.clone());
    let mut seen = BTreeSet::new();
    chosen.chain(of_groups).chain(others).filter(|text| !text.is_empty() && seen.insert(text.clone())).collect()
}

/// Adds the fields that show subscriptions.
pub(crate) fn with_subscriptions(described: &[DescribedType], events: &[String], mut fields: Fields) -> Fields {
    if events.iter().any(|event| event == "*") {
        return fields.with("which", "all");
    }
    let groups = Picker::new(described, &Fields::default()).groups;
    let has_box = |event: &String| {
        groups.iter().any(|group| {
            group.prefix.as_ref() == Some(event) || group.types.iter().any(|choosable| choosable.name == *event)
        })
    };
    let (boxes, others): (Vec<&String>, Vec<&String>) = events.iter().partition(|event| has_box(event));
    fields = fields.with("which", "these");
    for event in boxes {
        fields = fields.with("events", event);
    }
    let others: Vec<&str> = others.into_iter().map(String::as_str).collect();
    fields.with("others", others.join("\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn described(name: &str, category: Option<&str>) -> DescribedType {
        DescribedType {
            name: name.to_owned(),
            category: category.map(str::to_owned),
            description: None,
            sample: None,
            schema_version: None,
            source: "application",
        }
    }

    fn names() -> impl Strategy<Value = String> {
        "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}"
    }

    proptest! {
        #[test]
        fn subscriptions_come_back_from_the_form(
            known in proptest::collection::btree_map(names(), proptest::option::of("[XY]"), 0..8),
            events in proptest::collection::btree_set(prop_oneof![names(), names().prop_map(|name| format!("{name}.*"))], 1..8),
        ) {
            let known: Vec<DescribedType> =
                known.iter().map(|(name, category)| described(name, category.as_deref())).collect();
            let events: Vec<String> = events.into_iter().collect();
            let fields = with_subscriptions(&known, &events, Fields::default());
            let mut back = subscriptions(&known, &fields);
            back.sort();
            prop_assert_eq!(back, events);
        }

        #[test]
        fn each_type_is_in_one_group(known in proptest::collection::btree_map(names(), proptest::option::of("[XY]"), 0..12)) {
            let known: Vec<DescribedType> =
                known.iter().map(|(name, category)| described(name, category.as_deref())).collect();
            let picker = Picker::new(&known, &Fields::default());
            let mut names: Vec<&str> = picker.groups.iter().flat_map(|group| &group.types).map(|choosable| choosable.name.as_str()).collect();
            names.sort_unstable();
            prop_assert_eq!(names, known.iter().map(|described| described.name.as_str()).collect::<Vec<_>>());
            for group in &picker.groups {
                let covered = |name: &str| group.prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix.trim_end_matches('*')));
                prop_assert!(group.types.iter().all(|choosable| covered(&choosable.name)));
            }
        }
    }

    #[test]
    fn a_box_of_a_group_chooses_its_types() {
        let known = [described("A_B", Some("One")), described("A_C", Some("One")), described("D", None)];
        let fields = Fields::default().with("which", "these").with("group", "One").with("events", "A_B");
        assert_eq!(subscriptions(&known, &fields), ["A_B", "A_C"]);
        assert_eq!(Picker::new(&known, &fields).chosen(), 2);
        let all = Fields::default().with("which", "all").with("events", "D");
        assert_eq!(subscriptions(&known, &all), ["*"]);
    }
}
