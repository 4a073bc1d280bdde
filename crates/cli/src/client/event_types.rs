//! `fanfare event-types`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanfare_domain::json::MAX_DEPTH;
use http::Method;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Number, Value};

use super::{Api, Target, rows};

/// Columns of a type.
const TYPE: [(&str, usize); 4] = [("/result", 9), ("/name", 32), ("/schema_version", 7), ("/reason", 1)];

#[derive(Subcommand)]
pub(crate) enum EventTypesCommand {
    /// Imports event types with their schemas from an OpenAPI 3 or AsyncAPI 2 or 3 document. Imports none if a type is
    /// refused.
    Import(ImportArguments),
}

impl EventTypesCommand {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::Import(arguments) => &arguments.target,
        }
    }
}

#[derive(Args)]
pub(crate) struct ImportArguments {
    /// The document: JSON, or YAML.
    file: PathBuf,
    /// Change nothing, and print the result.
    #[arg(long)]
    dry_run: bool,
    /// Import the other types if a type is refused.
    #[arg(long)]
    skip_refused: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(api: &Api, command: EventTypesCommand) -> anyhow::Result<()> {
    let EventTypesCommand::Import(arguments) = command;
    let document = document(&arguments.file)?;
    let flag = |name, is_set: bool| (name, is_set.then(|| "true".to_owned()));
    let query = [flag("dry_run", arguments.dry_run), flag("skip_refused", arguments.skip_refused)];
    // A second import of the same document changes nothing.
    let answer = api.repeated(Method::POST, "event-types/import", &query, Some(document.to_string())).await?;
    let types = answer["data"]["types"].as_array().map(Vec::as_slice).unwrap_or_default();
    types.iter().for_each(|imported| rows::print(api.prints_json, imported, &TYPE));
    let count = |result: &str| types.iter().filter(|imported| imported["result"] == result).count();
    let refused = count("refused");
    eprintln!(
        "created: {}; changed: {}; unchanged: {}; refused: {refused}",
        count("created"),
        count("changed"),
        count("unchanged")
    );
    if refused > 0 && answer["data"]["imported"] != true {
        bail!("{refused} types are refused, and nothing is imported: correct the document, or give --skip-refused");
    }
    if arguments.dry_run {
        eprintln!("nothing is changed: this was a dry run");
    }
    Ok(())
}

/// Reads a document of JSON or YAML.
fn document(file: &Path) -> anyhow::Result<Value> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"));
    }
    // The reader bounds what aliases may expand to.
    let documents = Yaml::load_from_str(&text).with_context(|| format!("{name} is neither JSON nor YAML"))?;
    match documents.as_slice() {
        [document] => json(document, 0).with_context(|| format!("{name} cannot be sent as JSON")),
        documents => bail!("{name} holds {} YAML documents, not a single document", documents.len()),
    }
}

/// The same value as JSON. Numbers and booleans that name members become texts, as in `200: …`.
fn json(yaml: &Yaml<'_>, depth: usize) -> anyhow::Result<Value> {
    if depth > MAX_DEPTH {
        bail!("lists and mappings are nested deeper than {MAX_DEPTH} levels");
    }
    Ok(match yaml {
        Yaml::Value(scalar) => self::scalar(scalar)?,
        Yaml::Sequence(items) => {
            Value::Array(items.iter().map(|item| json(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(members) => {
            let member = |(name, value): (&Yaml<'_>, &Yaml<'_>)| {
                let name = match json(name, depth + 1)? {
                    Value::String(name) => name,
                    name if name.is_array() || name.is_object() => bail!("a list or a mapping cannot name a member"),
                    name => name.to_string(),
                };
                Ok((name, json(value, depth + 1)?))
            };
            Value::Object(members.iter().map(member).collect::<Result<_, _>>()?)
        }
        Yaml::Tagged(_, value) => json(value, depth + 1)?,
        Yaml::Alias(_) | Yaml::BadValue | Yaml::Representation(..) => bail!("a value does not match its tag"),
    })
}

fn scalar(scalar: &Scalar<'_>) -> anyhow::Result<Value> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(boolean) => Value::Bool(*boolean),
        Scalar::Integer(integer) => Value::from(*integer),
        Scalar::FloatingPoint(number) => {
            Number::from_f64(**number).map(Value::Number).context("JSON has no infinite number")?
        }
        Scalar::String(text) => Value::from(text.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    fn read(text: &str) -> anyhow::Result<Value> {
        let documents = Yaml::load_from_str(text)?;
        json(documents.first().context("no document")?, 0)
    }

    #[test]
    fn yaml_becomes_the_same_json() {
        let text = "openapi: 3.1.0\nversion: 3.0\nflags: [true, ~, 7, 0.5, '7', !!str 8]\nbase: &base\n  a: 1\nagain: *base\n200: ok\ntext: |\n  two\n  lines\n";
        let expected = value!({ "openapi": "3.1.0", "version": 3.0, "flags": [true, null, 7, 0.5, "7", "8"],
            "base": { "a": 1 }, "again": { "a": 1 }, "200": "ok", "text": "two\nlines\n" });
        assert_eq!(read(text).expect("JSON"), expected);
    }

    #[test]
    fn yaml_that_is_no_json_or_grows_without_bound_is_refused() {
        let mut growing = "a0: &a0 [x, x]\n".to_owned();
        for number in 1..60 {
            growing += &format!("a{number}: &a{number} [*a{0}, *a{0}, *a{0}]\n", number - 1);
        }
        let deep = "[".repeat(120) + &"]".repeat(120);
        for text in ["a: .inf", "[a]: b", "a: [", &growing, &deep] {
            assert!(read(text).is_err(), "{text:.40}");
        }
    }
}
