//! A page, read as browsers read HTML.

use html5ever::{ParseOpts, parse_document, tendril::TendrilSink};
use markup5ever_rcdom::{Handle, NodeData, RcDom};

/// An element with its attributes and its text.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    /// The text of the element and of all elements within.
    pub(crate) text: String,
    /// Index of the element around.
    parent: Option<usize>,
}

impl Element {
    /// The value of an attribute.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The names of all attributes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(|(name, _)| name.as_str())
    }
}

/// A form with the values that a browser would send.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) action: String,
    pub(crate) is_post: bool,
    pub(crate) fields: Vec<(String, String)>,
}

/// The elements of a page, in their order.
#[derive(Debug)]
pub(crate) struct Html {
    pub(crate) elements: Vec<Element>,
    /// Errors of the HTML standard.
    pub(crate) errors: Vec<String>,
}

impl Html {
    pub(crate) fn parse(text: &str) -> Self {
        let document = parse_document(RcDom::default(), ParseOpts::default()).one(text);
        let mut page =
            Self { elements: Vec::new(), errors: document.errors.borrow().iter().map(ToString::to_string).collect() };
        page.add(&document.document, None);
        page
    }

    fn add(&mut self, node: &Handle, parent: Option<usize>) -> String {
        let mut within = parent;
        match &node.data {
            NodeData::Text { contents } => return contents.borrow().to_string(),
            NodeData::Element { name, attrs, .. } => {
                let attributes =
                    attrs.borrow().iter().map(|a| (a.name.local.to_string(), a.value.to_string())).collect();
                within = Some(self.elements.len());
                self.elements.push(Element { name: name.local.to_string(), attributes, text: String::new(), parent });
            }
            _ => {}
        }
        let text: String = node.children.borrow().iter().map(|child| self.add(child, within)).collect();
        if within != parent
            && let Some(index) = within
        {
            self.elements[index].text.clone_from(&text);
        }
        text
    }

    /// All elements with a name.
    pub(crate) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a Element> + use<'a, 'n> {
        self.elements.iter().filter(move |element| element.name == name)
    }

    /// The text of the only element with a name.
    pub(crate) fn text(&self, name: &str) -> &str {
        let found: Vec<&Element> = self.all(name).collect();
        assert_eq!(found.len(), 1, "one {name}: {found:?}");
        found[0].text.trim()
    }

    /// The address of a link with this text.
    pub(crate) fn link(&self, text: &str) -> &str {
        let found = self.all("a").find(|link| link.text.trim() == text);
        found.and_then(|link| link.get("href")).unwrap_or_else(|| panic!("no link {text:?}"))
    }

    /// All addresses of links, styles, scripts and pictures.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.elements.iter().filter_map(|element| element.get("href").or(element.get("src")))
    }

    /// All forms but those that close a dialog.
    pub(crate) fn forms(&self) -> Vec<Form> {
        let forms = self.elements.iter().enumerate().filter(|(_, element)| element.name == "form");
        let sent = forms.filter(|(_, form)| form.get("method") != Some("dialog"));
        sent.map(|(index, form)| Form {
            action: form.get("action").unwrap_or_default().to_owned(),
            is_post: form.get("method") == Some("post"),
            fields: self.fields(index),
        })
        .collect()
    }

    /// Names and values of the fields within a form.
    fn fields(&self, form: usize) -> Vec<(String, String)> {
        let within = |element: &&Element| self.is_within(element, form);
        let mut fields = Vec::new();
        for element in self.elements.iter().filter(within) {
            let Some(name) = element.get("name") else { continue };
            let is_choice = matches!(element.get("type"), Some("checkbox" | "radio"));
            let value = match element.name.as_str() {
                "input" if is_choice && element.get("checked").is_none() => continue,
                "input" => element.get("value").unwrap_or(if is_choice { "on" } else { "" }),
                "textarea" => element.text.as_str(),
                _ => continue,
            };
            fields.push((name.to_owned(), value.to_owned()));
        }
        fields
    }

    fn is_within(&self, element: &Element, index: usize) -> bool {
        let mut at = element.parent;
        while let Some(parent) = at {
            if parent == index {
                return true;
            }
            at = self.elements[parent].parent;
        }
        false
    }
}
