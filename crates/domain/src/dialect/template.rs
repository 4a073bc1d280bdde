//! Templates: texts with placeholders, such as `sha256=<signature>`.

/// A text with `<placeholders>`, parsed once and filled often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<P>(Vec<Part<P>>);

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<P> {
    /// Fixed text.
    Text(String),
    /// Placeholder of a value.
    Place(P),
}

impl<P: Copy> Template<P> {
    /// Parses a template with the placeholders `places`.
    ///
    /// # Errors
    /// A sentence, if a placeholder is unknown or has no end.
    pub fn parse(text: &str, places: &[(&str, P)]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((plain, from_place)) = rest.split_once('<') {
            if !plain.is_empty() {
                parts.push(Part::Text(plain.to_owned()));
            }
            let (name, after) = from_place
                .split_once('>')
                .ok_or_else(|| format!("has a placeholder without its end: <{from_place}"))?;
            let place = places.iter().find(|(known, _)| *known == name).map(|&(_, place)| place).ok_or_else(|| {
                let known: Vec<String> = places.iter().map(|(known, _)| format!("<{known}>")).collect();
                format!("has the unknown placeholder <{name}>; use one of {}", known.join(" "))
            })?;
            parts.push(Part::Place(place));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Pieces, in order.
    pub fn parts(&self) -> &[Part<P>] {
        &self.0
    }

    /// Fills the template. `write` appends the value of a placeholder.
    pub fn fill(&self, mut write: impl FnMut(P, &mut String)) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Place(place) => write(*place, &mut text),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACES: [(&str, u8); 2] = [("one", 1), ("two", 2)];

    #[test]
    fn known_places_are_filled_and_unknown_places_refused() {
        let template = Template::parse("a<one>b<two><one>", &PLACES).expect("a template");
        assert_eq!(template.fill(|place, text| text.push_str(&place.to_string())), "a1b21");
        let unknown = Template::parse("<three>", &PLACES).expect_err("unknown");
        assert!(unknown.contains("<three>") && unknown.contains("<one> <two>"), "{unknown}");
        assert!(Template::parse("a <one", &PLACES).is_err());
    }

    proptest! {
        #[test]
        fn a_text_without_placeholders_is_itself(text in "[^<]*") {
            let template = Template::parse(&text, &PLACES).expect("a template");
            prop_assert_eq!(template.fill(|_, _| ()), text);
        }
    }
}
