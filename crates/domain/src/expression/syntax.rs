//! Syntax: reads a text by the parser of the crate `cel`, and accepts the part of the language that has a bounded cost.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{
    Env,
    common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators},
};
use regex::Regex;

use super::{
    ExpressionFault,
    cost::{self, MAX_DEPTH, MAX_LOOPS, MAX_NODES},
    messages,
};
use crate::event::{catalogue::nearest, with_suggestion};

/// Names of an event's parts. A condition may read the first two only: the others differ from copy to copy of an event.
pub(super) const NAMES: [&str; 4] = ["data", "type", "id", "time"];

/// Names in conditions.
pub(super) const NAMES_OF_CONDITION: &[&str] = &[NAMES[0], NAMES[1]];

/// Names of all functions.
const FUNCTIONS: [&str; 18] = [
    "has",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "lowerAscii",
    "upperAscii",
    "int",
    "double",
    "string",
    "orValue",
    "hasValue",
];

/// A checked expression, with the place in the text.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Place of the operator or the first character, counted in characters from 0.
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Node>),
    /// A part of the event, by position in [`NAMES`].
    Part(usize),
    /// The value of a loop: the number of open loops outside.
    Item(usize),
    /// A member. With `is_optional`, a missing member has no value.
    Member {
        of: Box<Node>,
        name: String,
        is_optional: bool,
    },
    Index {
        of: Box<Node>,
        index: Box<Node>,
        is_optional: bool,
    },
    /// True if the object has the member.
    Has(Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<[Node; 2]>),
    Condition(Box<[Node; 3]>),
    Loop {
        kind: LoopKind,
        over: Box<Node>,
        body: Box<Node>,
        then: Option<Box<Node>>,
    },
    Call(Function, Vec<Node>),
    Matches {
        of: Box<Node>,
        pattern: Regex,
        states: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Int,
    Double,
    Text,
    OrValue,
    HasValue,
}

impl Operator {
    const ALL: [(&str, Self, &str); 14] = [
        (operators::LOGICAL_AND, Self::And, "&&"),
        (operators::LOGICAL_OR, Self::Or, "||"),
        (operators::EQUALS, Self::Equal, "=="),
        (operators::NOT_EQUALS, Self::Unequal, "!="),
        (operators::LESS, Self::Less, "<"),
        (operators::LESS_EQUALS, Self::LessOrEqual, "<="),
        (operators::GREATER, Self::Greater, ">"),
        (operators::GREATER_EQUALS, Self::GreaterOrEqual, ">="),
        (operators::IN, Self::In, "in"),
        (operators::ADD, Self::Add, "+"),
        (operators::SUBSTRACT, Self::Subtract, "-"),
        (operators::MULTIPLY, Self::Multiply, "*"),
        (operators::DIVIDE, Self::Divide, "/"),
        (operators::MODULO, Self::Remainder, "%"),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, ..)| *known == name).map(|(_, operator, _)| *operator)
    }

    /// The sign in expressions.
    pub(super) fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, operator, _)| *operator == self).map_or("", |(.., sign)| sign)
    }
}

impl LoopKind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "exists" => Self::Exists,
            "exists_one" => Self::ExistsOne,
            "filter" => Self::Filter,
            "map" => Self::Map,
            _ => return None,
        })
    }
}

impl Function {
    /// The function, and the number of arguments behind the first value.
    fn named(name: &str) -> Option<(Self, usize)> {
        Some(match name {
            "size" => (Self::Size, 0),
            "contains" => (Self::Contains, 1),
            "startsWith" => (Self::StartsWith, 1),
            "endsWith" => (Self::EndsWith, 1),
            "lowerAscii" => (Self::LowerAscii, 0),
            "upperAscii" => (Self::UpperAscii, 0),
            "int" => (Self::Int, 0),
            "double" => (Self::Double, 0),
            "string" => (Self::Text, 0),
            "orValue" => (Self::OrValue, 1),
            "hasValue" => (Self::HasValue, 0),
            _ => return None,
        })
    }

    /// True for functions written as `size(x)`.
    fn is_global(self) -> bool {
        matches!(self, Self::Size | Self::Int | Self::Double | Self::Text)
    }

    /// True for functions written as `x.size()`.
    fn is_member(self) -> bool {
        !matches!(self, Self::Int | Self::Double | Self::Text)
    }

    /// Name in expressions.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
            Self::OrValue => "orValue",
            Self::HasValue => "hasValue",
        }
    }
}

/// Parses and checks a text, which must be within the bound of length.
///
/// # Errors
/// The first fault.
pub(super) fn parse(text: &str, names: &'static [&'static str]) -> Result<Parsed, ExpressionFault> {
    // An environment without macros leaves `has` and the loops as calls.
    let parsing = || Env::default().parser().parse_with_source_info(text);
    let parsed = catch_unwind(AssertUnwindSafe(parsing));
    let (root, source) = match parsed {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(errors)) => return Err(messages::of_parser(text, &errors)),
        Err(_) => return Err(ExpressionFault::new(0, "cannot be read")),
    };
    let mut reader = Reader { source: &source, names, nodes: 0, loops: Vec::new(), patterns: 0 };
    let root = reader.node(&root, 1)?;
    Ok(Parsed { root, states: reader.patterns })
}

/// A checked expression.
pub(super) struct Parsed {
    pub(super) root: Node,
    /// States of all patterns.
    pub(super) states: u64,
}

struct Reader<'a> {
    source: &'a SourceInfo,
    /// Names of the parts of the event that the expression may read.
    names: &'static [&'static str],
    nodes: usize,
    /// Names of the open loops' values.
    loops: Vec<&'a str>,
    /// States of all patterns.
    patterns: u64,
}

impl<'a> Reader<'a> {
    fn at(&self, expression: &IdedExpr) -> usize {
        // The parser counts bytes.
        let start = self.source.offset_for(expression.id).map_or(0, |(start, _)| start as usize);
        self.source.source.get(..start).map_or(0, |before| before.chars().count())
    }

    fn fault(&self, expression: &IdedExpr, reason: impl Into<String>) -> ExpressionFault {
        ExpressionFault::new(self.at(expression), reason)
    }

    fn node(&mut self, expression: &'a IdedExpr, depth: usize) -> Result<Node, ExpressionFault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.fault(expression, format!("more than {MAX_NODES} values and operators")));
        }
        if depth > MAX_DEPTH {
            let reason = format!("nested deeper than {MAX_DEPTH} levels; a chain of operators nests, too");
            return Err(self.fault(expression, reason));
        }
        let kind = match &expression.expr {
            Expr::Literal(literal) => self.literal(expression, literal)?,
            Expr::Ident(name) => self.name(expression, name)?,
            Expr::List(list) if list.optional_indices.is_empty() => Kind::List(self.all(&list.elements, depth)?),
            Expr::Select(select) => {
                Kind::Member { of: self.boxed(&select.operand, depth)?, name: select.field.clone(), is_optional: false }
            }
            Expr::Call(call) => self.call(expression, call, depth)?,
            Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => {
                return Err(self.fault(expression, "an object with members cannot be made here"));
            }
            Expr::Comprehension(_) | Expr::Unspecified => return Err(self.fault(expression, "cannot be read")),
        };
        Ok(Node { kind, at: self.at(expression) })
    }

    fn all(&mut self, expressions: &'a [IdedExpr], depth: usize) -> Result<Vec<Node>, ExpressionFault> {
        expressions.iter().map(|expression| self.node(expression, depth + 1)).collect()
    }

    fn boxed(&mut self, expression: &'a IdedExpr, depth: usize) -> Result<Box<Node>, ExpressionFault> {
        self.node(expression, depth + 1).map(Box::new)
    }

    fn literal(&self, expression: &IdedExpr, literal: &LiteralValue) -> Result<Kind, ExpressionFault> {
        Ok(match literal {
            LiteralValue::Null => Kind::Null,
            LiteralValue::Boolean(value) => Kind::Bool(*value.inner()),
            LiteralValue::Int(value) => Kind::Int(*value.inner()),
            LiteralValue::Double(value) if value.inner().is_finite() => Kind::Double(*value.inner()),
            LiteralValue::String(value) => Kind::Text(value.inner().to_owned()),
            LiteralValue::UInt(_) => return Err(self.fault(expression, "write the number without `u`")),
            LiteralValue::Double(_) => return Err(self.fault(expression, "the number is too large")),
            LiteralValue::Bytes(_) => return Err(self.fault(expression, "write the text without `b`")),
        })
    }

    fn name(&self, expression: &IdedExpr, name: &str) -> Result<Kind, ExpressionFault> {
        if let Some(depth) = self.loops.iter().rposition(|known| *known == name) {
            return Ok(Kind::Item(depth));
        }
        if let Some(part) = self.names.iter().position(|known| *known == name) {
            return Ok(Kind::Part(part));
        }
        let hint = messages::of_name(name, self.names);
        Err(self.fault(expression, format!("unknown name `{}`; {hint}", messages::short(name))))
    }

    fn call(&mut self, expression: &'a IdedExpr, call: &'a CallExpr, depth: usize) -> Result<Kind, ExpressionFault> {
        let name = call.func_name.as_str();
        match (&call.target, call.args.as_slice()) {
            (None, [of]) if name == operators::LOGICAL_NOT => Ok(Kind::Not(self.boxed(of, depth)?)),
            (None, [of]) if name == operators::NEGATE => Ok(Kind::Negate(self.boxed(of, depth)?)),
            (None, [condition, yes, no]) if name == operators::CONDITIONAL => {
                let parts = [condition, yes, no].map(|part| self.node(part, depth + 1));
                let [condition, yes, no] = parts;
                Ok(Kind::Condition(Box::new([condition?, yes?, no?])))
            }
            (None, [of, index]) if [operators::INDEX, operators::OPT_INDEX].contains(&name) => Ok(Kind::Index {
                of: self.boxed(of, depth)?,
                index: self.boxed(index, depth)?,
                is_optional: name == operators::OPT_INDEX,
            }),
            (None, [of, field]) if name == operators::OPT_SELECT => match &field.expr {
                Expr::Literal(LiteralValue::String(field)) => {
                    let name = field.inner().to_owned();
                    Ok(Kind::Member { of: self.boxed(of, depth)?, name, is_optional: true })
                }
                _ => Err(self.fault(expression, "expected a member's name")),
            },
            (None, [left, right]) if Operator::named(name).is_some() => {
                let operator = Operator::named(name).unwrap_or(Operator::And);
                let (left, right) = (self.node(left, depth + 1)?, self.node(right, depth + 1)?);
                Ok(Kind::Binary(operator, Box::new([left, right])))
            }
            (None, [member @ IdedExpr { expr: Expr::Select(_), .. }]) if name == "has" => {
                self.boxed(member, depth).map(Kind::Has)
            }
            (None, _) if name == "has" => {
                Err(self.fault(expression, "`has` takes a member, as in has(data.customer.email)"))
            }
            (Some(of), arguments) if LoopKind::named(name).is_some() => {
                let kind = LoopKind::named(name).unwrap_or(LoopKind::All);
                self.repeated(expression, kind, of, arguments, depth)
            }
            (Some(of), [pattern]) if name == "matches" => self.matches(of, pattern, depth),
            (target, arguments) => self.function(expression, target.as_deref(), name, arguments, depth),
        }
    }

    fn repeated(
        &mut self,
        expression: &IdedExpr,
        kind: LoopKind,
        over: &'a IdedExpr,
        arguments: &'a [IdedExpr],
        depth: usize,
    ) -> Result<Kind, ExpressionFault> {
        let over = self.boxed(over, depth)?;
        let (variable, body, then) = match arguments {
            [IdedExpr { expr: Expr::Ident(variable), .. }, body] => (variable, body, None),
            [IdedExpr { expr: Expr::Ident(variable), .. }, body, then] if kind == LoopKind::Map => {
                (variable, body, Some(then))
            }
            _ => {
                let reason = "a loop takes a name and an expression, as in data.items.exists(item, item.price > 10)";
                return Err(self.fault(expression, reason));
            }
        };
        if self.names.contains(&variable.as_str()) {
            return Err(
                self.fault(expression, format!("`{variable}` is a part of the event; name the entry otherwise"))
            );
        }
        if self.loops.len() >= MAX_LOOPS {
            return Err(self.fault(expression, format!("more than {MAX_LOOPS} loops within each other")));
        }
        self.loops.push(variable);
        let inner = self.boxed(body, depth).and_then(|body| {
            let then = then.map(|then| self.boxed(then, depth)).transpose()?;
            Ok((body, then))
        });
        self.loops.pop();
        let (body, then) = inner?;
        Ok(Kind::Loop { kind, over, body, then })
    }

    fn matches(&mut self, of: &'a IdedExpr, pattern: &IdedExpr, depth: usize) -> Result<Kind, ExpressionFault> {
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            return Err(self.fault(pattern, "the pattern must be a text in quotes"));
        };
        let (pattern, states) = cost::pattern(text.inner()).map_err(|reason| self.fault(pattern, reason))?;
        self.patterns += states;
        if self.patterns > cost::MAX_STATES {
            let reason = format!("patterns with more than {} states together", cost::MAX_STATES);
            return Err(self.fault(of, reason));
        }
        Ok(Kind::Matches { of: self.boxed(of, depth)?, pattern, states })
    }

    fn function(
        &mut self,
        expression: &IdedExpr,
        target: Option<&'a IdedExpr>,
        name: &str,
        arguments: &'a [IdedExpr],
        depth: usize,
    ) -> Result<Kind, ExpressionFault> {
        let Some((function, more)) = Function::named(name) else {
            let sentence = format!("unknown function `{}`", messages::short(name));
            return Err(self.fault(expression, with_suggestion(&sentence, nearest(name, FUNCTIONS))));
        };
        let fits = if target.is_some() { function.is_member() } else { function.is_global() };
        let given = arguments.len() + usize::from(target.is_some());
        if !fits || given != more + 1 {
            let usage = match (function.is_member(), more) {
                (true, 0) => format!("value.{name}()"),
                (true, _) => format!("value.{name}(\"text\")"),
                (false, _) => format!("{name}(value)"),
            };
            return Err(self.fault(expression, format!("write `{name}` as {usage}")));
        }
        let target = target.map(|target| self.node(target, depth + 1)).transpose()?;
        let mut values: Vec<Node> = target.into_iter().collect();
        values.extend(self.all(arguments, depth)?);
        Ok(Kind::Call(function, values))
    }
}
