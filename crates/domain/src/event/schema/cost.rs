//! Bounds of a check's cost, from the schema alone.
//!
//! Unit of cost: a look at a member, an entry of a list or a pattern. The states of patterns have a bound of their own:
//! a pattern may cost as much as its states for each character. References make a few subschemas apply many times, and
//! a recursive schema may apply to one value once for each way to the value. The bounds count these applications
//! without following each way.

use regex_syntax::hir::{Hir, HirKind};
use serde_json::Value;

use super::{
    SchemaFault,
    graph::{Graph, Node},
};
use crate::json::MAX_DEPTH;

/// Greatest cost at a value that exists once in data.
const MAX_ONCE: u64 = 4000;

/// Greatest cost at each value that may be repeated: entries of arrays, members of any name, recursive values.
const MAX_REPEATED: u64 = 400;

/// Most states of all patterns that apply to a value.
const MAX_STATES: u64 = 300;

/// Longest chain of subschemas that apply to the same value. A check calls itself for each.
const MAX_CHAIN: usize = 24;

/// Greatest size of all patterns, in states and ranges of characters: a bound of memory.
const MAX_PATTERN_SIZE: u64 = 20_000;

/// Least factor of the cost within a subschema with `unevaluatedProperties` or `unevaluatedItems`. A check looks again
/// for the evaluated members, at each alternative of a chain once more.
const UNEVALUATED: u64 = 4;

/// Memory of a compiled pattern beside its states and ranges, in bytes.
const PATTERN_MEMORY: u64 = 2 * 1024;

/// Memory of a state or range of a compiled pattern, in bytes. Measured: `\p{L}{7}` takes 1 MB, and counts 18,000.
const PART_MEMORY: u64 = 64;

/// Checks the bounds. A schema within the bounds has no reference that returns to the same value.
///
/// Returns the memory of the compiled patterns, in bytes.
///
/// # Errors
/// With the exceeded bound.
pub(super) fn check(graph: &Graph<'_>) -> Result<usize, SchemaFault> {
    let mut patterns = Patterns::default();
    let costs: Vec<Own> = graph.nodes.iter().map(|node| own(node, &mut patterns)).collect::<Result<_, _>>()?;
    if patterns.size > MAX_PATTERN_SIZE {
        return Err(SchemaFault::new(format!(
            "has patterns with {} states and ranges, and {MAX_PATTERN_SIZE} are allowed: bound lengths by maxLength",
            patterns.size
        )));
    }
    let order = in_place_order(graph)?;
    let (states, _) = Bounds::new(graph, &order, &costs, |own| (own.states, own.name_states)).busiest();
    if states > MAX_STATES {
        return Err(SchemaFault::new(format!(
            "has patterns with more than {MAX_STATES} states for one value: bound lengths by maxLength"
        )));
    }
    let (once, repeated) = Bounds::new(graph, &order, &costs, |own| (own.looks, own.names)).busiest();
    let is_recursive = is_recursive(graph);
    if once > MAX_ONCE || repeated > MAX_REPEATED || is_recursive && once > MAX_REPEATED {
        let most = if is_recursive { MAX_REPEATED } else { MAX_ONCE };
        return Err(SchemaFault::new(format!(
            "costs too much to check: references and alternatives lead to more than {most} rules at one value, or to \
             more than {MAX_REPEATED} at each entry of a list or recursive value"
        )));
    }
    Ok(usize::try_from(PATTERN_MEMORY * patterns.count + PART_MEMORY * patterns.size).unwrap_or(usize::MAX))
}

/// The patterns of a schema.
#[derive(Debug, Default)]
struct Patterns {
    count: u64,
    /// States, and ranges of characters.
    size: u64,
}

/// Costs of a subschema's own keywords at a value.
struct Own {
    looks: u64,
    /// States of the pattern.
    states: u64,
    /// Patterns for names, and their states: at each name.
    names: u64,
    name_states: u64,
}

fn own(node: &Node<'_>, patterns: &mut Patterns) -> Result<Own, SchemaFault> {
    let members = |name: &str| node.keyword(name).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let entries = |name: &str| node.keyword(name).and_then(Value::as_array).map_or(0, Vec::len);
    let mut looks = 1 + members("properties") + members("dependentSchemas") + entries("required");
    for name in ["enum", "const", "pattern"] {
        looks += node.keyword(name).map_or(0, values);
    }
    let required = node.keyword("dependentRequired").and_then(Value::as_object);
    looks += required.into_iter().flatten().map(|(_, names)| 1 + names.as_array().map_or(0, Vec::len)).sum::<usize>();
    let pattern = node.keyword("pattern").and_then(Value::as_str);
    let states = pattern.map_or(Ok(0), |pattern| pattern_states(pattern, patterns))?;
    let keyed = node.keyword("patternProperties").and_then(Value::as_object).into_iter().flatten();
    let name_states = keyed.map(|(pattern, _)| pattern_states(pattern, patterns)).sum::<Result<_, _>>()?;
    Ok(Own { looks: looks as u64, states, names: members("patternProperties") as u64, name_states })
}

/// Number of values in a JSON value.
pub(super) fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        _ => 0,
    }
}

/// States of a pattern that may be active at a character.
fn pattern_states(pattern: &str, patterns: &mut Patterns) -> Result<u64, SchemaFault> {
    let shown: String = pattern.chars().take(50).collect();
    let fault = || {
        SchemaFault::new(format!(
            "has the pattern {shown:?}, which is no regular expression, or looks around or back: write a plain one"
        ))
    };
    let translated = jsonschema_regex::to_rust_regex(pattern).map_err(|()| fault())?;
    let parsed = regex_syntax::Parser::new().parse(&translated).map_err(|_| fault())?;
    let (states, parts) = pattern_size(&parsed);
    patterns.count += 1;
    patterns.size = patterns.size.saturating_add(parts);
    Ok(states)
}

/// States, and size with the ranges of characters. A repetition without a bound counts as its least number, at least
/// once.
fn pattern_size(pattern: &Hir) -> (u64, u64) {
    let sum = |parts: &[Hir]| {
        let add =
            |(states, size): (u64, u64), part: (u64, u64)| (states.saturating_add(part.0), size.saturating_add(part.1));
        parts.iter().map(pattern_size).fold((1, 1), add)
    };
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => (1, 1),
        HirKind::Literal(literal) => (literal.0.len() as u64, literal.0.len() as u64),
        HirKind::Class(class) => match class {
            regex_syntax::hir::Class::Unicode(class) if class.is_ascii() => (1, class.ranges().len() as u64),
            regex_syntax::hir::Class::Unicode(class) => (2, 4 * class.ranges().len() as u64),
            regex_syntax::hir::Class::Bytes(class) => (1, class.ranges().len() as u64),
        },
        HirKind::Repetition(repetition) => {
            let (states, size) = pattern_size(&repetition.sub);
            let times = u64::from(repetition.max.unwrap_or(repetition.min).max(1));
            (states.saturating_mul(times).saturating_add(1), size.saturating_mul(times).saturating_add(1))
        }
        HirKind::Capture(capture) => pattern_size(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

/// All subschemas, each after the subschemas that apply to the same value through it.
fn in_place_order(graph: &Graph<'_>) -> Result<Vec<usize>, SchemaFault> {
    let mut order = Vec::with_capacity(graph.nodes.len());
    // Length of the chain below; `None` while the subschema is being visited.
    let mut chains: Vec<Option<Option<usize>>> = vec![None; graph.nodes.len()];
    for start in 0..graph.nodes.len() {
        let mut stack = vec![(start, 0)];
        if chains[start].is_some() {
            continue;
        }
        chains[start] = Some(None);
        while let Some((number, edge)) = stack.pop() {
            let edges = &graph.nodes[number].edges;
            if let Some(next) = edges.get(edge) {
                stack.push((number, edge + 1));
                match chains[next.target] {
                    _ if !next.is_in_place() => {}
                    None => {
                        chains[next.target] = Some(None);
                        stack.push((next.target, 0));
                    }
                    Some(None) => {
                        let message = "has a $ref that leads back to itself at the same value";
                        return Err(SchemaFault::new(message.to_owned()));
                    }
                    Some(Some(_)) => {}
                }
                continue;
            }
            let below = edges.iter().filter(|edge| edge.is_in_place()).filter_map(|edge| chains[edge.target].flatten());
            let chain = 1 + below.max().unwrap_or(0);
            if chain > MAX_CHAIN {
                let message = format!("has a chain of more than {MAX_CHAIN} references and alternatives at one value");
                return Err(SchemaFault::new(message));
            }
            chains[number] = Some(Some(chain));
            order.push(number);
        }
    }
    Ok(order)
}

/// Factor of the costs of all subschemas within each subschema.
fn factors(graph: &Graph<'_>, order: &[usize]) -> Vec<u64> {
    let mut chains = vec![0_u64; graph.nodes.len()];
    for &number in order {
        let below = graph.nodes[number].edges.iter().filter(|edge| edge.is_in_place());
        chains[number] = 1 + below.map(|edge| chains[edge.target]).max().unwrap_or(0);
    }
    let looks_again =
        |node: &Node<'_>| ["unevaluatedProperties", "unevaluatedItems"].iter().any(|name| node.keyword(name).is_some());
    let factor = |(node, chain): (&Node<'_>, u64)| if looks_again(node) { UNEVALUATED.max(chain) } else { 1 };
    graph.nodes.iter().zip(chains).map(factor).collect()
}

/// Cost of each subschema at a value, with all subschemas at the same value.
fn in_place_costs(graph: &Graph<'_>, order: &[usize], factors: &[u64], own: impl Fn(usize) -> u64) -> Vec<u64> {
    let mut costs = vec![0_u64; graph.nodes.len()];
    for &number in order {
        let node = &graph.nodes[number];
        let below = node.edges.iter().filter(|edge| edge.is_in_place()).map(|edge| costs[edge.target]);
        let below = below.fold(0_u64, u64::saturating_add).saturating_mul(factors[number]);
        costs[number] = own(number).saturating_add(below);
    }
    costs
}

/// True if a subschema is below itself.
fn is_recursive(graph: &Graph<'_>) -> bool {
    // Subschemas that are not below themselves, found by removing subschemas without a remaining way onward.
    let mut ways: Vec<usize> = vec![0; graph.nodes.len()];
    let mut back: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (number, node) in graph.nodes.iter().enumerate() {
        for edge in node.edges.iter().filter(|edge| !edge.is_definition()) {
            ways[number] += 1;
            back[edge.target].push(number);
        }
    }
    let mut ended: Vec<usize> = (0..ways.len()).filter(|&number| ways[number] == 0).collect();
    let mut removed = 0;
    while let Some(number) = ended.pop() {
        removed += 1;
        for &before in &back[number] {
            ways[before] -= 1;
            if ways[before] == 0 {
                ended.push(before);
            }
        }
    }
    removed < graph.nodes.len()
}

/// Costs at the busiest values below a subschema, for data of a certain depth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Busiest {
    /// At any value, and at the value itself.
    once: u64,
    /// At a repeated value.
    repeated: u64,
}

/// Costs at the busiest values below an object and below an array.
#[derive(Debug, Clone, Default)]
struct Below {
    object: Busiest,
    array: Busiest,
}

struct Bounds<'a> {
    graph: &'a Graph<'a>,
    order: &'a [usize],
    factors: Vec<u64>,
    in_place: Vec<u64>,
    /// Cost of the patterns for names of each subschema.
    names: Vec<u64>,
}

impl<'a> Bounds<'a> {
    /// Bounds of a cost. `cost` gives the cost at a value, and at each name.
    fn new(graph: &'a Graph<'a>, order: &'a [usize], costs: &[Own], cost: impl Fn(&Own) -> (u64, u64)) -> Self {
        let factors = factors(graph, order);
        let in_place = in_place_costs(graph, order, &factors, |number| cost(&costs[number]).0);
        Self { graph, order, factors, in_place, names: costs.iter().map(|own| cost(own).1).collect() }
    }

    /// Costs at the busiest value below the schema, and at the busiest repeated value.
    fn busiest(&self) -> (u64, u64) {
        let start = |cost: &u64| Busiest { once: *cost, repeated: 0 };
        let mut costs: Vec<Busiest> = self.in_place.iter().map(start).collect();
        for _ in 0..MAX_DEPTH {
            let next = self.one_level_up(&costs);
            if next == costs || next[0].once > MAX_ONCE {
                costs = next;
                break;
            }
            costs = next;
        }
        (costs[0].once, costs[0].repeated)
    }

    /// The costs for data that is one level deeper.
    fn one_level_up(&self, costs: &[Busiest]) -> Vec<Busiest> {
        let mut below: Vec<Below> = vec![Below::default(); costs.len()];
        let mut next = vec![Busiest::default(); costs.len()];
        for &number in self.order {
            let node = &self.graph.nodes[number];
            let mut here = self.children(number, costs);
            for edge in node.edges.iter().filter(|edge| edge.is_in_place()) {
                let (target, factor) = (&below[edge.target], self.factors[number]);
                for (here, there) in [(&mut here.object, &target.object), (&mut here.array, &target.array)] {
                    here.once = here.once.saturating_add(there.once.saturating_mul(factor));
                    here.repeated = here.repeated.saturating_add(there.repeated.saturating_mul(factor));
                }
            }
            next[number] = Busiest {
                once: self.in_place[number].max(here.object.once).max(here.array.once),
                repeated: here.object.repeated.max(here.array.repeated),
            };
            below[number] = here;
        }
        next
    }

    /// Costs at the busiest member and the busiest entry, of a subschema's own keywords.
    fn children(&self, number: usize, costs: &[Busiest]) -> Below {
        let mut below = Below::default();
        // Each member and each entry, beside the keywords for a single member or entry.
        let (mut members, mut entries) = (self.names[number], 0_u64);
        for edge in &self.graph.nodes[number].edges {
            let cost = &costs[edge.target];
            let raise = |busiest: &mut Busiest, repeated: u64| {
                busiest.once = busiest.once.max(cost.once);
                busiest.repeated = busiest.repeated.max(repeated);
            };
            match edge.keyword {
                "properties" => raise(&mut below.object, cost.repeated),
                "additionalProperties" | "propertyNames" => raise(&mut below.object, cost.once),
                "patternProperties" | "unevaluatedProperties" => members = members.saturating_add(cost.once),
                "prefixItems" => raise(&mut below.array, cost.repeated),
                "items" => raise(&mut below.array, cost.once),
                "contains" | "unevaluatedItems" => entries = entries.saturating_add(cost.once),
                _ => {}
            }
        }
        for (busiest, each) in [(&mut below.object, members), (&mut below.array, entries)] {
            busiest.once = busiest.once.saturating_add(each);
            // Beside a rule for each entry, the rule for a single entry counts as well.
            busiest.repeated = if each == 0 { busiest.repeated } else { busiest.once.max(busiest.repeated) };
        }
        below
    }
}
