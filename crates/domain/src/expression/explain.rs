//! Explanations: the part of a condition that decided, and the values that the part looked at.

use super::{Evaluation, Expression, Fault, Kind, Node, Operator, Outcome, Parts, Reason, syntax::NAMES};

/// Most values of an explanation.
const MAX_VALUES: usize = 5;

/// Result of a condition for an event, with the part that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Result of the condition.
    pub outcome: Outcome,
    /// Text of the part that decided: of the conditions joined by `&&`, the first that is not met, or has no result.
    /// `None` if the condition is met.
    pub part: Option<String>,
    /// Position of the part in the text, in characters from 1.
    pub position: usize,
    /// The reason why the part has no result.
    pub error: Option<String>,
    /// Members that the part looked at, and the start of their values.
    pub values: Vec<(String, String)>,
}

/// A condition of a chain joined by `&&`.
struct Part<'a> {
    node: &'a Node,
    text: String,
    /// Place of the first character, from 0.
    at: usize,
}

impl Expression {
    /// Evaluates the condition, and explains the result.
    pub fn explain(&self, parts: Parts<'_>) -> Explanation {
        let result = Evaluation::new(parts).condition(&self.root);
        let outcome = Outcome::of(&result);
        if outcome == Outcome::True {
            return Explanation { outcome, part: None, position: 1, error: None, values: Vec::new() };
        }
        let chain = self.chain();
        // Both evaluations ask the parts in the same order, within the same bound of steps.
        let mut evaluation = Evaluation::new(parts);
        let decided = chain.iter().find_map(|part| {
            let result = evaluation.condition(part.node);
            (Outcome::of(&result) == outcome).then(|| (part, result.err()))
        });
        let whole = Part { node: &self.root, text: self.text.clone(), at: 0 };
        let (part, fault) = decided.unwrap_or_else(|| (&whole, result.err()));
        let error = fault.map(|fault| match fault.reason {
            Reason::TooCostly | Reason::Hidden => fault.reason.to_string(),
            reason => format!("{reason} (at character {})", fault.at + 1),
        });
        Explanation {
            outcome,
            part: Some(part.text.clone()),
            position: part.at + 1,
            error,
            values: values(part.node, parts),
        }
    }

    /// The conditions joined by `&&`, in order.
    fn chain(&self) -> Vec<Part<'_>> {
        let (mut terms, mut signs) = (Vec::new(), Vec::new());
        walk(&self.root, &mut terms, &mut signs);
        let characters: Vec<char> = self.text.chars().collect();
        let starts = std::iter::once(0).chain(signs.iter().map(|sign| sign + 2));
        let ends = signs.iter().copied().chain([characters.len()]);
        let part = |((node, start), end): ((_, usize), usize)| {
            let text: String = characters.get(start..end).unwrap_or_default().iter().collect();
            let (text, skipped) = without_open_brackets(&text);
            Part { node, text: text.to_owned(), at: start + skipped }
        };
        terms.into_iter().zip(starts).zip(ends).map(part).collect()
    }
}

fn walk<'a>(node: &'a Node, terms: &mut Vec<&'a Node>, signs: &mut Vec<usize>) {
    if let Kind::Binary(Operator::And, operands) = &node.kind {
        let [left, right] = &**operands;
        walk(left, terms, signs);
        signs.push(node.at);
        walk(right, terms, signs);
    } else {
        terms.push(node);
    }
}

/// The text without space and brackets around several parts, and the number of characters left out at the start.
fn without_open_brackets(text: &str) -> (&str, usize) {
    let mut rest = text.trim();
    loop {
        let (open, closed) = (rest.matches('(').count(), rest.matches(')').count());
        rest = match (rest.strip_prefix('('), rest.strip_suffix(')')) {
            (Some(shorter), _) if open > closed => shorter.trim_start(),
            (_, Some(shorter)) if closed > open => shorter.trim_end(),
            _ => break,
        };
    }
    let skipped = rest.as_ptr() as usize - text.as_ptr() as usize;
    (rest, text[..skipped].chars().count())
}

/// The members that a part reads, with their values.
fn values(node: &Node, parts: Parts<'_>) -> Vec<(String, String)> {
    let mut found: Vec<(String, &Node)> = Vec::new();
    collect(node, &mut found);
    let mut values: Vec<(String, String)> = Vec::new();
    for (path, node) in found {
        if values.len() >= MAX_VALUES {
            break;
        }
        if values.iter().all(|(known, _)| *known != path) {
            values.push((path, shown(node, parts)));
        }
    }
    values
}

fn shown(node: &Node, parts: Parts<'_>) -> String {
    match Evaluation::new(parts).value(node) {
        Ok(value) => value.shown(),
        Err(Fault { reason: Reason::Hidden, .. }) => "hidden".to_owned(),
        Err(_) => "missing".to_owned(),
    }
}

/// Collects the longest paths below `data`, and `type`.
fn collect<'a>(node: &'a Node, found: &mut Vec<(String, &'a Node)>) {
    if let Some(path) = path(node) {
        return found.push((path, node));
    }
    match &node.kind {
        Kind::Has(of) | Kind::Not(of) | Kind::Negate(of) | Kind::Member { of, .. } | Kind::Matches { of, .. } => {
            collect(of, found);
        }
        Kind::Index { of, index, .. } => [of, index].into_iter().for_each(|node| collect(node, found)),
        Kind::Binary(_, operands) => operands.iter().for_each(|node| collect(node, found)),
        Kind::Condition(branches) => branches.iter().for_each(|node| collect(node, found)),
        Kind::List(nodes) | Kind::Call(_, nodes) => nodes.iter().for_each(|node| collect(node, found)),
        Kind::Loop { over, body, then, .. } => {
            [Some(over), Some(body), then.as_ref()].into_iter().flatten().for_each(|node| collect(node, found));
        }
        _ => {}
    }
}

/// Text of a path such as `data.items[0].price`.
fn path(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Part(part) => NAMES.get(*part).map(|name| (*name).to_owned()),
        Kind::Member { of, name, .. } => path(of).map(|of| format!("{of}.{name}")),
        Kind::Index { of, index, .. } => {
            let of = path(of)?;
            match &index.kind {
                Kind::Int(index) => Some(format!("{of}[{index}]")),
                Kind::Text(name) => Some(format!("{of}[{}]", serde_json::Value::from(name.as_str()))),
                _ => None,
            }
        }
        _ => None,
    }
}
