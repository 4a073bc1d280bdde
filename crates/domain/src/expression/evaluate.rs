//! Evaluation: counts steps, and ends with a fault beyond the bound.

use std::{borrow::Cow, cmp::Ordering, fmt, rc::Rc};

use regex::Regex;
use serde_json::Value as Json;

use super::{
    Parts,
    cost::{self, MAX_MADE_TEXT, MAX_STEPS},
    syntax::{Function, Kind, LoopKind, Node, Operator},
    value::Value,
};
use crate::endpoint::redaction::HIDDEN;

/// Steps of a fault, which an alternative may absorb.
const FAULT_STEPS: u64 = 4;

/// Steps to make a list, beside its entries, and to compare two objects, beside their members.
const LIST_STEPS: u64 = 4;
const OBJECT_STEPS: u64 = 4;

/// The reason why an evaluation has no result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault<'a> {
    /// Place in the expression, in characters from 0.
    pub(super) at: usize,
    pub(super) reason: Reason<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reason<'a> {
    Missing(Cow<'a, str>),
    NoEntry(i64),
    /// A member of a value without members.
    NoObject(Cow<'a, str>, &'static str),
    /// Operands of kinds that the operator or function does not take.
    Kinds(&'static str, [&'static str; 2]),
    Kind(&'static str, &'static str),
    /// A result other than true or false.
    NoBool(&'static str),
    NoNumber,
    Overflow,
    DivisionByZero,
    TooLong,
    TooCostly,
    Hidden,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(formatter, "the event has no member `{}`", super::messages::short(name)),
            Self::NoEntry(index) => write!(formatter, "the list has no entry {index}"),
            Self::NoObject(name, found) => {
                write!(formatter, "{found} has no member `{}`", super::messages::short(name))
            }
            Self::Kinds(operator, [left, right]) => {
                write!(formatter, "`{operator}` does not take {left} and {right}")
            }
            Self::Kind(operator, found) => write!(formatter, "`{operator}` does not take {found}"),
            Self::NoBool(found) => write!(formatter, "yields {found}, and must yield true or false"),
            Self::NoNumber => formatter.write_str("the text is no number"),
            Self::Overflow => formatter.write_str("the number is beyond 64 bits"),
            Self::DivisionByZero => formatter.write_str("division by zero"),
            Self::TooLong => write!(formatter, "a made text is longer than {MAX_MADE_TEXT} bytes"),
            Self::TooCostly => write!(formatter, "more than {MAX_STEPS} steps for this event: shorten the loops"),
            Self::Hidden => formatter.write_str("the result depends on a member that is hidden here"),
        }
    }
}

type Evaluated<'a> = Result<Value<'a>, Fault<'a>>;

/// An evaluation in progress.
pub(super) struct Evaluation<'a> {
    parts: Parts<'a>,
    pub(super) steps: u64,
    /// Maximum of steps.
    most: u64,
    /// Values of the open loops.
    items: Vec<Value<'a>>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(parts: Parts<'a>) -> Self {
        Self::within(MAX_STEPS, parts)
    }

    /// An evaluation that ends with a fault beyond `most` steps, at most [`MAX_STEPS`].
    pub(super) fn within(most: u64, parts: Parts<'a>) -> Self {
        Self { parts, steps: 0, most: most.min(MAX_STEPS), items: Vec::new() }
    }

    /// True or false.
    pub(super) fn condition(&mut self, node: &'a Node) -> Result<bool, Fault<'a>> {
        match self.value(node)? {
            Value::Bool(value) => Ok(value),
            other => Err(Fault { at: node.at, reason: Reason::NoBool(other.kind()) }),
        }
    }

    fn charge(&mut self, node: &Node, steps: u64) -> Result<(), Fault<'a>> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.most { Err(Fault { at: node.at, reason: Reason::TooCostly }) } else { Ok(()) }
    }

    fn fault<T>(&mut self, node: &Node, reason: Reason<'a>) -> Result<T, Fault<'a>> {
        self.charge(node, FAULT_STEPS)?;
        Err(Fault { at: node.at, reason })
    }

    /// A value of the event.
    fn of_json(&self, node: &Node, json: &'a Json) -> Evaluated<'a> {
        if self.parts.hides && json.as_str() == Some(HIDDEN) {
            return Err(Fault { at: node.at, reason: Reason::Hidden });
        }
        Ok(Value::of_json(json))
    }

    pub(super) fn value(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.charge(node, 1)?;
        Ok(match &node.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::Int(*value),
            Kind::Double(value) => Value::Double(*value),
            Kind::Text(text) => Value::Text(Cow::Borrowed(text)),
            Kind::List(items) => {
                self.charge(node, LIST_STEPS + items.len() as u64)?;
                Value::List(items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>()?.into())
            }
            Kind::Part(0) => self.of_json(node, self.parts.data)?,
            Kind::Part(1) => Value::Text(Cow::Borrowed(self.parts.event_type)),
            Kind::Part(2) => Value::Text(Cow::Borrowed(self.parts.id)),
            Kind::Part(_) => Value::Text(Cow::Borrowed(self.parts.time)),
            Kind::Item(depth) => {
                let item = self.items.get(*depth).map_or(Value::Null, Value::clone);
                self.charge(node, copy_steps(&item))?;
                item
            }
            Kind::Member { of, name, is_optional } => {
                let of = self.value(of)?;
                self.member(node, of, Cow::Borrowed(name), *is_optional)?
            }
            Kind::Index { of, index, is_optional } => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                self.index(node, of, index, *is_optional)?
            }
            Kind::Has(member) => match &member.kind {
                Kind::Member { of, name, .. } => {
                    let of = self.value(of)?;
                    self.has(node, of, name)?
                }
                _ => return self.fault(node, Reason::Kind("has", "another value")),
            },
            Kind::Not(of) => self.not(node, of)?,
            Kind::Negate(of) => self.negate(node, of)?,
            Kind::Binary(operator, operands) => self.binary(node, *operator, operands)?,
            Kind::Condition(branches) => {
                let [condition, yes, no] = &**branches;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(yes)?,
                    Value::Bool(false) => self.value(no)?,
                    other => return self.fault(node, Reason::Kind("?:", other.kind())),
                }
            }
            Kind::Loop { kind, over, body, then } => self.repeat(node, *kind, over, body, then.as_deref())?,
            Kind::Call(function, values) => self.call(node, *function, values)?,
            Kind::Matches { of, pattern, states } => self.matches(node, of, pattern, *states)?,
        })
    }

    fn not(&mut self, node: &Node, of: &'a Node) -> Evaluated<'a> {
        match self.value(of)? {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            other => self.fault(node, Reason::Kind("!", other.kind())),
        }
    }

    fn negate(&mut self, node: &Node, of: &'a Node) -> Evaluated<'a> {
        match self.value(of)? {
            Value::Int(value) => match value.checked_neg() {
                Some(value) => Ok(Value::Int(value)),
                None => self.fault(node, Reason::Overflow),
            },
            Value::Double(value) => Ok(Value::Double(-value)),
            other => self.fault(node, Reason::Kind("-", other.kind())),
        }
    }

    fn matches(&mut self, node: &Node, of: &'a Node, pattern: &Regex, states: u64) -> Evaluated<'a> {
        match self.value(of)? {
            Value::Text(text) => {
                self.charge(node, cost::matching(text.len(), states))?;
                Ok(Value::Bool(pattern.is_match(&text)))
            }
            other => self.fault(node, Reason::Kind("matches", other.kind())),
        }
    }

    fn member(&mut self, node: &'a Node, of: Value<'a>, name: Cow<'a, str>, is_optional: bool) -> Evaluated<'a> {
        let found = match of {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(of)) => {
                self.charge(node, copy_steps(&of))?;
                return self.member(node, (*of).clone(), name, true);
            }
            Value::Object(members) => {
                self.charge(node, cost::bytes(name.len()))?;
                members.get(&*name).map(|json| self.of_json(node, json)).transpose()?
            }
            _ if is_optional => None,
            other => return self.fault(node, Reason::NoObject(name, other.kind())),
        };
        match found {
            found if is_optional => Ok(Value::Optional(found.map(Rc::new))),
            Some(value) => Ok(value),
            None => self.fault(node, Reason::Missing(name)),
        }
    }

    fn index(&mut self, node: &'a Node, of: Value<'a>, index: Value<'a>, is_optional: bool) -> Evaluated<'a> {
        let found = match (of, index) {
            (Value::Optional(None), _) => return Ok(Value::Optional(None)),
            (Value::Optional(Some(of)), index) => {
                self.charge(node, copy_steps(&of))?;
                return self.index(node, (*of).clone(), index, true);
            }
            (of @ Value::Object(_), Value::Text(name)) => return self.member(node, of, name, is_optional),
            (Value::Array(items), Value::Int(index)) => {
                let found = usize::try_from(index).ok().and_then(|index| items.get(index));
                (found.map(|json| self.of_json(node, json)).transpose()?, index)
            }
            (Value::List(items), Value::Int(index)) => {
                let found = usize::try_from(index).ok().and_then(|index| items.get(index)).cloned();
                found.as_ref().map_or(Ok(()), |found| self.charge(node, copy_steps(found)))?;
                (found, index)
            }
            _ if is_optional => return Ok(Value::Optional(None)),
            (of, index) => return self.fault(node, Reason::Kinds("[]", [of.kind(), index.kind()])),
        };
        match found {
            (found, _) if is_optional => Ok(Value::Optional(found.map(Rc::new))),
            (Some(value), _) => Ok(value),
            (None, index) => self.fault(node, Reason::NoEntry(index)),
        }
    }

    fn has(&mut self, node: &Node, of: Value<'a>, name: &'a str) -> Evaluated<'a> {
        match of {
            Value::Object(members) => Ok(Value::Bool(members.contains_key(name))),
            Value::Optional(None) => Ok(Value::Bool(false)),
            Value::Optional(Some(of)) => self.has(node, (*of).clone(), name),
            other => self.fault(node, Reason::NoObject(Cow::Borrowed(name), other.kind())),
        }
    }

    fn binary(&mut self, node: &'a Node, operator: Operator, operands: &'a [Node; 2]) -> Evaluated<'a> {
        let [left, right] = operands;
        if let Operator::And | Operator::Or = operator {
            return self.logic(node, operator, left, right);
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        let ordered = |self_: &mut Self, is_met: fn(Ordering) -> bool| {
            if let (Value::Text(left), Value::Text(right)) = (&left, &right) {
                self_.charge(node, cost::text(left.len().min(right.len())))?;
            }
            match left.order(&right) {
                Some(order) => Ok(Value::Bool(is_met(order))),
                None => self_.fault(node, Reason::Kinds(operator.sign(), [left.kind(), right.kind()])),
            }
        };
        match operator {
            Operator::Equal => self.equal(node, &left, &right).map(Value::Bool),
            Operator::Unequal => self.equal(node, &left, &right).map(|is_equal| Value::Bool(!is_equal)),
            Operator::Less => ordered(self, Ordering::is_lt),
            Operator::LessOrEqual => ordered(self, Ordering::is_le),
            Operator::Greater => ordered(self, Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(self, Ordering::is_ge),
            Operator::In => self.contains(node, &left, &right).map(Value::Bool),
            _ => self.arithmetic(node, operator, left, right),
        }
    }

    /// `&&` and `||`: a side that decides hides a fault of the other side.
    fn logic(&mut self, node: &'a Node, operator: Operator, left: &'a Node, right: &'a Node) -> Evaluated<'a> {
        let decides = operator == Operator::Or;
        let left = self.operand(node, operator, left);
        match left {
            Ok(value) if value == decides => return Ok(Value::Bool(value)),
            Err(Fault { reason: Reason::TooCostly, .. }) => return left.map(Value::Bool),
            _ => {}
        }
        match (left, self.operand(node, operator, right)) {
            (_, Ok(right)) if right == decides => Ok(Value::Bool(right)),
            (_, Err(fault @ Fault { reason: Reason::TooCostly, .. })) => Err(fault),
            (left, right) => left.and(right).map(Value::Bool),
        }
    }

    fn operand(&mut self, node: &Node, operator: Operator, operand: &'a Node) -> Result<bool, Fault<'a>> {
        match self.value(operand)? {
            Value::Bool(value) => Ok(value),
            other => self.fault(node, Reason::Kind(operator.sign(), other.kind())),
        }
    }

    fn equal(&mut self, node: &Node, left: &Value<'a>, right: &Value<'a>) -> Result<bool, Fault<'a>> {
        self.charge(node, 1)?;
        match (left, right) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::Text(left), Value::Text(right)) => {
                self.charge(node, cost::text(left.len().min(right.len())))?;
                Ok(left == right)
            }
            (Value::Array(_) | Value::List(_), Value::Array(_) | Value::List(_)) => {
                if length(left) != length(right) {
                    return Ok(false);
                }
                for position in 0..length(left) {
                    self.charge(node, 1)?;
                    let (left, right) = (self.entry(node, left, position)?, self.entry(node, right, position)?);
                    if !self.equal(node, &left, &right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(left), Value::Object(right)) => {
                self.charge(node, OBJECT_STEPS)?;
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (name, left) in *left {
                    self.charge(node, 1 + cost::text(name.len()))?;
                    let Some(right) = right.get(name) else { return Ok(false) };
                    let (left, right) = (self.of_json(node, left)?, self.of_json(node, right)?);
                    if !self.equal(node, &left, &right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Optional(left), Value::Optional(right)) => match (left, right) {
                (Some(left), Some(right)) => self.equal(node, left, right),
                (left, right) => Ok(left.is_none() && right.is_none()),
            },
            _ => Ok(left.order(right) == Some(Ordering::Equal)),
        }
    }

    /// Entry of a list.
    fn entry(&mut self, node: &Node, list: &Value<'a>, position: usize) -> Evaluated<'a> {
        match list {
            Value::Array(items) => items.get(position).map_or(Ok(Value::Null), |json| self.of_json(node, json)),
            Value::List(items) => {
                let entry = items.get(position).map_or(Value::Null, Value::clone);
                self.charge(node, copy_steps(&entry))?;
                Ok(entry)
            }
            _ => Ok(Value::Null),
        }
    }

    fn contains(&mut self, node: &Node, value: &Value<'a>, of: &Value<'a>) -> Result<bool, Fault<'a>> {
        match (value, of) {
            (Value::Text(name), Value::Object(members)) => {
                self.charge(node, cost::bytes(name.len()))?;
                Ok(members.contains_key(&**name))
            }
            (Value::Bool(_) | Value::Int(_) | Value::Double(_), Value::Object(_)) => Ok(false),
            (_, Value::Array(_) | Value::List(_)) => {
                for position in 0..length(of) {
                    let entry = self.entry(node, of, position)?;
                    if self.equal(node, value, &entry)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => self.fault(node, Reason::Kinds("in", [value.kind(), of.kind()])),
        }
    }

    fn arithmetic(&mut self, node: &Node, operator: Operator, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
        let kinds = [left.kind(), right.kind()];
        let integer = |result: Option<i64>| result.map(Value::Int);
        let result = match (operator, left, right) {
            (Operator::Add, Value::Text(left), Value::Text(right)) => return self.join(node, &left, &right),
            (Operator::Add, left @ (Value::Array(_) | Value::List(_)), right @ (Value::Array(_) | Value::List(_))) => {
                return self.append(node, &left, &right);
            }
            (Operator::Divide | Operator::Remainder, Value::Int(_), Value::Int(0)) => {
                return self.fault(node, Reason::DivisionByZero);
            }
            (Operator::Add, Value::Int(left), Value::Int(right)) => integer(left.checked_add(right)),
            (Operator::Subtract, Value::Int(left), Value::Int(right)) => integer(left.checked_sub(right)),
            (Operator::Multiply, Value::Int(left), Value::Int(right)) => integer(left.checked_mul(right)),
            (Operator::Divide, Value::Int(left), Value::Int(right)) => integer(left.checked_div(right)),
            (Operator::Remainder, Value::Int(left), Value::Int(right)) => integer(left.checked_rem(right)),
            (operator, left, right) => match (double(&left), double(&right)) {
                (Some(left), Some(right)) => match operator {
                    Operator::Add => Some(Value::Double(left + right)),
                    Operator::Subtract => Some(Value::Double(left - right)),
                    Operator::Multiply => Some(Value::Double(left * right)),
                    Operator::Divide => Some(Value::Double(left / right)),
                    _ => return self.fault(node, Reason::Kinds(operator.sign(), kinds)),
                },
                _ => return self.fault(node, Reason::Kinds(operator.sign(), kinds)),
            },
        };
        match result {
            Some(value) => Ok(value),
            None => self.fault(node, Reason::Overflow),
        }
    }

    fn join(&mut self, node: &Node, left: &str, right: &str) -> Evaluated<'a> {
        let length = left.len() + right.len();
        if length > MAX_MADE_TEXT {
            return self.fault(node, Reason::TooLong);
        }
        self.charge(node, cost::text(length))?;
        Ok(Value::Text(Cow::Owned([left, right].concat())))
    }

    fn append(&mut self, node: &Node, left: &Value<'a>, right: &Value<'a>) -> Evaluated<'a> {
        self.charge(node, LIST_STEPS + 2 * (length(left) + length(right)) as u64)?;
        let mut items = Vec::with_capacity(length(left) + length(right));
        for list in [left, right] {
            for position in 0..length(list) {
                items.push(self.entry(node, list, position)?);
            }
        }
        Ok(Value::List(items.into()))
    }

    fn repeat(
        &mut self,
        node: &'a Node,
        kind: LoopKind,
        over: &'a Node,
        body: &'a Node,
        then: Option<&'a Node>,
    ) -> Evaluated<'a> {
        let over = self.value(over)?;
        let over = match over {
            Value::Array(_) | Value::List(_) => over,
            Value::Object(members) => {
                self.charge(node, members.len() as u64)?;
                list(members.keys().map(|name| Value::Text(Cow::Borrowed(name.as_str()))).collect())
            }
            other => return self.fault(node, Reason::Kind("a loop", other.kind())),
        };
        let mut made = Vec::new();
        let mut met = 0_usize;
        let mut fault = None;
        for position in 0..length(&over) {
            self.charge(node, 1)?;
            let entry = self.entry(node, &over, position);
            let result = entry.and_then(|entry| {
                self.items.push(entry);
                let result = self.round(kind, body, then, &mut made);
                self.items.pop();
                result
            });
            match (kind, result) {
                (_, Err(fault @ Fault { reason: Reason::TooCostly, .. })) => return Err(fault),
                (LoopKind::All, Ok(false)) => return Ok(Value::Bool(false)),
                (LoopKind::Exists, Ok(true)) => return Ok(Value::Bool(true)),
                (LoopKind::All | LoopKind::Exists, Err(found)) => fault = fault.or(Some(found)),
                (_, Err(fault)) => return Err(fault),
                (_, Ok(is_met)) => met += usize::from(is_met),
            }
        }
        match (kind, fault) {
            (_, Some(fault)) => Err(fault),
            (LoopKind::All, None) => Ok(Value::Bool(true)),
            (LoopKind::Exists, None) => Ok(Value::Bool(false)),
            (LoopKind::ExistsOne, None) => Ok(Value::Bool(met == 1)),
            (LoopKind::Filter | LoopKind::Map, None) => Ok(list(made)),
        }
    }

    /// A round of a loop: true if the entry meets the condition.
    fn round(
        &mut self,
        kind: LoopKind,
        body: &'a Node,
        then: Option<&'a Node>,
        made: &mut Vec<Value<'a>>,
    ) -> Result<bool, Fault<'a>> {
        if kind == LoopKind::Map {
            let is_met = then.is_none() || self.condition_of_loop(body)?;
            if is_met {
                made.push(self.value(then.unwrap_or(body))?);
            }
            return Ok(is_met);
        }
        let is_met = self.condition_of_loop(body)?;
        if let (LoopKind::Filter, true, Some(item)) = (kind, is_met, self.items.last()) {
            let item = item.clone();
            self.charge(body, copy_steps(&item))?;
            made.push(item);
        }
        Ok(is_met)
    }

    fn condition_of_loop(&mut self, body: &'a Node) -> Result<bool, Fault<'a>> {
        match self.value(body)? {
            Value::Bool(value) => Ok(value),
            other => self.fault(body, Reason::Kind("a loop's condition", other.kind())),
        }
    }

    fn call(&mut self, node: &'a Node, function: Function, values: &'a [Node]) -> Evaluated<'a> {
        let mut arguments = values.iter();
        let of = arguments.next().map_or(Ok(Value::Null), |of| self.value(of))?;
        if let (Function::OrValue, Value::Optional(value), Some(other)) = (function, &of, values.get(1)) {
            let Some(value) = value else { return self.value(other) };
            self.charge(node, copy_steps(value))?;
            return Ok((**value).clone());
        }
        let argument = arguments.next().map(|argument| self.value(argument)).transpose()?;
        if let Value::Text(text) = &of {
            self.charge(node, cost::text(text.len()))?;
        }
        let name = function.name();
        Ok(match (function, of, argument) {
            (Function::Size, Value::Text(text), None) => Value::Int(count(text.chars().count())),
            (Function::Size, Value::Object(members), None) => Value::Int(count(members.len())),
            (Function::Size, list @ (Value::Array(_) | Value::List(_)), None) => Value::Int(count(length(&list))),
            (Function::Contains, Value::Text(text), Some(Value::Text(part))) => Value::Bool(text.contains(&*part)),
            (Function::StartsWith, Value::Text(text), Some(Value::Text(part))) => Value::Bool(text.starts_with(&*part)),
            (Function::EndsWith, Value::Text(text), Some(Value::Text(part))) => Value::Bool(text.ends_with(&*part)),
            (Function::LowerAscii | Function::UpperAscii, Value::Text(text), None) => {
                if text.len() > MAX_MADE_TEXT {
                    return self.fault(node, Reason::TooLong);
                }
                let is_lower = function == Function::LowerAscii;
                Value::Text(Cow::Owned(if is_lower { text.to_ascii_lowercase() } else { text.to_ascii_uppercase() }))
            }
            (Function::HasValue, Value::Optional(value), None) => Value::Bool(value.is_some()),
            (Function::Int, value, None) => self.integer(node, value)?,
            (Function::Double, Value::Text(text), None) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Double(number),
                _ => return self.fault(node, Reason::NoNumber),
            },
            (Function::Double, value, None) => match double(&value) {
                Some(number) => Value::Double(number),
                None => return self.fault(node, Reason::Kind(name, value.kind())),
            },
            (Function::Text, Value::Text(text), None) => Value::Text(text),
            (Function::Text, value @ (Value::Bool(_) | Value::Int(_) | Value::Double(_)), None) => {
                Value::Text(Cow::Owned(value.shown()))
            }
            (_, of, None) => return self.fault(node, Reason::Kind(name, of.kind())),
            (_, of, Some(argument)) => return self.fault(node, Reason::Kinds(name, [of.kind(), argument.kind()])),
        })
    }

    fn integer(&mut self, node: &Node, value: Value<'a>) -> Evaluated<'a> {
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        match value {
            Value::Int(number) => Ok(Value::Int(number)),
            #[expect(clippy::cast_possible_truncation, reason = "within the range of i64; the fraction is cut off")]
            Value::Double(number) if (-LIMIT..LIMIT).contains(&number) => Ok(Value::Int(number as i64)),
            Value::Double(_) => self.fault(node, Reason::Overflow),
            Value::Text(text) => match text.parse() {
                Ok(number) => Ok(Value::Int(number)),
                Err(_) => self.fault(node, Reason::NoNumber),
            },
            other => self.fault(node, Reason::Kind("int", other.kind())),
        }
    }
}

/// Steps to copy a value: a made text is copied whole.
fn copy_steps(value: &Value<'_>) -> u64 {
    match value {
        Value::Text(Cow::Owned(text)) => cost::bytes(text.len()),
        _ => 0,
    }
}

fn list(items: Vec<Value<'_>>) -> Value<'_> {
    Value::List(items.into())
}

fn length(list: &Value<'_>) -> usize {
    match list {
        Value::Array(items) => items.len(),
        Value::List(items) => items.len(),
        _ => 0,
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "as CEL converts integers")]
fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        _ => None,
    }
}
