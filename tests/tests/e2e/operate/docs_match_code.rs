//! Checks documents, schemas and examples against the code: settings, metrics, reason codes, links, files and make
//! targets.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fanfare_domain::{
    delivery::retry::RetryMessage,
    event::{EventFields, description::Wanted},
    operational::catalogue,
};
use fanfare_tests::{servers::instance::repository, world::release::Release};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Folders with documents, in addition to the top-level `README.md`.
const FOLDERS: [&str; 5] = [".github", "crates", "deploy", "proto", "tests"];

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Paths of all documents, from the top-level folder.
fn documents() -> Vec<String> {
    let root = repository();
    let found = FOLDERS.iter().flat_map(|folder| files(&root.join(folder), "md"));
    let own = found.filter(|path| !path.components().any(|part| part.as_os_str() == "node_modules"));
    let path = |path: PathBuf| path.strip_prefix(root).expect("a path in the repository").display().to_string();
    let documents: Vec<String> = ["README.md".to_owned()].into_iter().chain(own.map(path)).collect();
    assert!(documents.len() > 15, "only {documents:?} were found: update FOLDERS");
    documents
}

/// All files with this extension in a folder and its subfolders, sorted.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn the_settings_hold_every_setting_and_metric() {
    let settings = read("deploy/settings.md");
    let lines: BTreeSet<&str> = settings.lines().collect();
    for service in ["ingest", "dispatcher"] {
        let output = Command::new(Release::present().program(service))
            .arg("--reference")
            .env_clear()
            .output()
            .expect("the service starts");
        assert!(output.status.success(), "{service} --reference failed");
        let reference = String::from_utf8(output.stdout).expect("text");
        let (start, end) = (format!("<!-- {service} --reference -->"), "<!-- end -->");
        let there = settings.split_once(&start).and_then(|(_, rest)| rest.split_once(end)).map(|(text, _)| text.trim());
        assert_eq!(
            there,
            Some(reference.trim()),
            "deploy/settings.md differs; put the output of `{service} --reference` between {start} and {end}"
        );
        assert!(reference.lines().all(|line| lines.contains(line)));
    }
}

#[test]
fn the_settings_name_every_variable_that_the_code_reads() {
    let settings = read("deploy/settings.md");
    let mut named = 0;
    for file in files(&repository().join("crates"), "rs") {
        let source = read(&file);
        for word in source.split('"').filter(|word| is_variable(word)) {
            named += 1;
            assert!(settings.contains(&format!("`{word}`")), "{}: {word} is not in deploy/settings.md", file.display());
        }
    }
    assert!(named > 15, "only {named} variables were found: update the search pattern of this test");
}

fn is_variable(word: &str) -> bool {
    let rest = word.strip_prefix("FANFARE_").unwrap_or_default();
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn every_reason_to_park_is_explained() {
    let contract = read("proto/README.md");
    let mut codes = BTreeSet::from(["delivery_limit".to_owned()]);
    for folder in ["crates/broker/src", "crates/dispatcher/src"] {
        for file in files(&repository().join(folder), "rs") {
            let source = read(file);
            let reasons = source.split("Unreadable::new(").skip(1);
            codes.extend(
                reasons.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)),
            );
        }
    }
    let source = read("crates/domain/src/event.rs");
    let (_, words) = source.split_once("impl FaultCode").expect("the codes of faults");
    let (words, _) = words.split_once("\n}").expect("the end of the codes");
    codes.extend(words.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)));
    assert!(codes.len() > 15, "only {codes:?} were found: update the search pattern of this test");
    for code in codes {
        assert!(contract.contains(&format!("| `{code}` |")), "proto/README.md does not explain {code}");
    }
}

#[test]
fn every_place_of_the_crash_table_is_in_the_code_and_killed_at() {
    let (table, tests) = (read("crates/dispatcher/README.md"), read("tests/tests/e2e/survive/steps.rs"));
    let (_, table) = table.split_once("## The crash table").expect("the crash table");
    let (table, _) = table.split_once("\n## ").expect("the end of the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let described: BTreeSet<&str> =
        rows.flat_map(|(places, _)| places.split('`')).filter(|place| place.contains('.')).collect();
    let mut placed = BTreeSet::new();
    for file in files(&repository().join("crates"), "rs") {
        let source = read(file);
        let places = source.split("crash_point(\"").skip(1).filter_map(|rest| rest.split('"').next());
        placed.extend(places.map(str::to_owned));
    }
    assert_eq!(described, placed.iter().map(String::as_str).collect(), "the crash table, and crash_point in the code");
    assert!(placed.len() > 15, "only {placed:?} were found: update the search pattern of this test");
    for place in placed {
        let is_killed_at = tests.contains(&format!("\"{place}\"")) || tests.contains(&format!("\"{place}:"));
        assert!(is_killed_at, "tests/tests/e2e/survive/steps.rs does not kill at {place}");
    }
}

#[test]
fn every_reason_of_a_delivery_is_explained() {
    let contract = read("proto/receiving.md");
    let source = read("crates/domain/src/delivery.rs");
    let words: BTreeSet<&str> = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(words.len() > 15, "only {words:?} were found: update the search pattern of this test");
    for word in words {
        assert!(contract.contains(&format!("| `{word}` |")), "proto/receiving.md does not explain {word}");
    }
}

#[test]
fn the_operational_events_are_those_of_the_code() {
    let document = read("proto/operational-events.md");
    let wanted = catalogue::wanted().expect("the catalogue");
    for (described, wanted) in catalogue::described().iter().zip(&wanted) {
        let row = format!("| `{}` | {} |", described.name, described.description);
        assert!(document.contains(&row), "proto/operational-events.md lacks: {row}");
        let heading = format!("\n`{}`:\n\n```json\n", described.name);
        let sample = document.split_once(&heading).and_then(|(_, rest)| rest.split_once("```"));
        let (sample, _) = sample.unwrap_or_else(|| panic!("no data of {}", described.name));
        let Wanted::Value(schema) = &wanted.schema else { panic!("no schema of {}", described.name) };
        assert_eq!(schema.check(sample, true), Ok(()), "{}", described.name);
        let mut known: Value = serde_json::from_str(&described.sample.to_string()).expect("JSON");
        known.as_object_mut().expect("an object").remove("link");
        assert_eq!(serde_json::from_str::<Value>(sample).expect("JSON"), known, "{}", described.name);
    }
}

#[test]
fn the_openapi_document_is_that_of_the_code() {
    let output = Command::new(Release::present().program("ingest"))
        .arg("--openapi")
        .env_clear()
        .output()
        .expect("ingest starts");
    assert!(output.status.success(), "ingest --openapi failed");
    let made = String::from_utf8(output.stdout).expect("text");
    // The message omits both texts: each has thousands of lines.
    assert!(
        made == read("proto/openapi.json"),
        "proto/openapi.json differs: put the output of `ingest --openapi` there"
    );
}

#[test]
fn the_example_dialect_is_valid() {
    let text = read("crates/domain/dialects/README.md");
    let (_, rest) = text.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("the end of the example");
    let folder = std::env::temp_dir().join(format!("fanfare-example-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("acme.toml");
    fs::write(&file, example).expect("a file");
    let output = Command::new(Release::present().program("fanfare"))
        .args(["dialect", "check"])
        .arg(&file)
        .output()
        .expect("fanfare starts");
    let _ = fs::remove_dir_all(&folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.contains(r#""kind":"order.created","at":"1970-01-01T00:00:00.000Z","payload":{"content":"#),
        "{shown}"
    );
}

#[test]
fn examples_are_accepted_or_refused_as_labelled() {
    let schema: Value = serde_json::from_str(&read("proto/event.schema.json")).expect("a schema");
    let accepted = |text: &str| EventFields::parse(text.as_bytes()).and_then(|fields| fields.require_type().cloned());
    let valid = files(&repository().join("proto/examples/valid"), "json");
    let invalid = files(&repository().join("proto/examples/invalid"), "json");
    assert!(valid.len() >= 5 && invalid.len() >= 10);
    for file in valid {
        let text = read(&file);
        assert!(accepted(&text).is_ok(), "{}: {:?}", file.display(), accepted(&text));
        let fault = fault(&schema, &serde_json::from_str(&text).expect("JSON"), "");
        assert_eq!(fault, None, "{}: the schema refuses it", file.display());
    }
    for file in invalid {
        let text = read(&file);
        assert!(accepted(&text).is_err(), "{} is accepted", file.display());
        let is_beyond = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("beyond-a-schema-"));
        let refused =
            serde_json::from_str(&text).map_or(Some("no JSON".to_owned()), |value| fault(&schema, &value, ""));
        assert!(is_beyond || refused.is_some(), "{}: the schema accepts it", file.display());
    }
}

#[test]
fn the_schema_of_an_event_is_that_of_the_code() {
    let schema: Value = serde_json::from_str(&read("proto/event.schema.json")).expect("a schema");
    let fields: Vec<&String> = schema["properties"].as_object().expect("properties").keys().collect();
    assert_eq!(fields, ["data", "deliver_at", "id", "ordering_key", "time", "type", "version"]);
    assert_eq!(schema["required"], json!(["type", "data"]));
    let refused = EventFields::parse(br#"{"x": 1, "data": 1}"#).expect_err("an unknown field");
    assert!(
        refused.message.ends_with("type, data, id, time, deliver_at, version and ordering_key"),
        "the code has other fields: {}",
        refused.message
    );
    let longest = |field: &str| schema["properties"][field]["maxLength"].as_u64().expect("a length") as usize;
    assert_eq!(longest("type"), fanfare_domain::event::MAX_TYPE_LENGTH);
    assert_eq!(longest("id"), fanfare_domain::event::MAX_KEY_LENGTH);
    assert_eq!(longest("ordering_key"), fanfare_domain::event::ordering::MAX_ORDERING_KEY);
    assert_eq!(schema["properties"]["version"]["maximum"], fanfare_domain::event::schema::MAX_VERSIONS);
}

#[test]
fn the_schema_of_a_retry_message_is_that_of_the_code() {
    let schema: Value = serde_json::from_str(&read("proto/retry.schema.json")).expect("a schema");
    let id = |prefix: &str| format!("{prefix}_01h455vb4pex5vsknk084sn02q");
    let given = json!({
        "delivery": id("dlv"), "application": id("app"), "endpoint": id("wh"), "attempt": 2, "then": [5, 1],
    });
    let retry: RetryMessage = serde_json::from_value(given).expect("a retry message");
    let fields_of = |retry: &RetryMessage| {
        let written = serde_json::to_value(retry).expect("JSON");
        written.as_object().expect("an object").keys().cloned().collect::<BTreeSet<String>>()
    };
    let described: BTreeSet<String> = schema["properties"].as_object().expect("properties").keys().cloned().collect();
    assert_eq!(fields_of(&retry), described);
    let written = serde_json::to_value(&retry).expect("JSON");
    let fields = fields_of(&RetryMessage { then: Vec::new(), ..retry });
    let required = schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str);
    assert_eq!(fields, required.map(str::to_owned).collect());
    let ids = ["delivery", "application", "endpoint"];
    for field in ids {
        let pattern = schema["properties"][field]["pattern"].as_str().expect("a pattern");
        let prefix = written[field].as_str().and_then(|text| text.split_once('_')).expect("an id").0;
        assert_eq!(pattern, format!("^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"));
    }
}

/// The first violation of a schema by a value. Supports the keywords of the schemas in `proto`; any other keyword fails
/// the test.
fn fault(schema: &Value, value: &Value, at: &str) -> Option<String> {
    schema.as_object().expect("a schema").iter().find_map(|(keyword, argument)| {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" => true,
            "type" => match argument.as_str().expect("a type") {
                "object" => value.is_object(),
                "string" => value.is_string(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("this test does not support the type {other}"),
            },
            "properties" => {
                let mut described = argument.as_object().expect("properties").iter();
                return described.find_map(|(name, schema)| fault(schema, value.get(name)?, name));
            }
            "required" => {
                let names = argument.as_array().expect("names").iter().filter_map(Value::as_str);
                value.as_object().is_none_or(|fields| names.into_iter().all(|name| fields.contains_key(name)))
            }
            "additionalProperties" => {
                assert_eq!(argument, &json!(false));
                let known = schema["properties"].as_object().expect("properties");
                value.as_object().is_none_or(|fields| fields.keys().all(|name| known.contains_key(name)))
            }
            // JSON Schema counts code points.
            "minLength" => length(value) >= argument.as_u64().expect("a length"),
            "maxLength" => value.is_string() && length(value) <= argument.as_u64().expect("a length"),
            "pattern" => value.as_str().is_none_or(|text| matches(argument.as_str().expect("a pattern"), text)),
            "minimum" => value.as_u64() >= argument.as_u64(),
            "maximum" => value.as_u64() <= argument.as_u64(),
            "format" => {
                assert_eq!(argument, "date-time");
                value.as_str().is_none_or(|text| text.parse::<Timestamp>().is_ok())
            }
            other => panic!("this test does not support the keyword {other}"),
        };
        (!holds).then(|| format!("{at} {keyword}"))
    })
}

fn length(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.chars().count() as u64)
}

/// The patterns of the event schema, implemented by hand. A changed pattern needs a new implementation here.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        "^[A-Za-z0-9_:/-]([A-Za-z0-9_.:/-]*[A-Za-z0-9_:/-])?$" => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:/".contains(&byte);
            !text.is_empty()
                && text.bytes().all(|byte| is_plain(byte) || byte == b'.')
                && !text.starts_with('.')
                && !text.ends_with('.')
        }
        r"^[^\u0000-\u001f\u007f-\u009f]+$" => !text.is_empty() && !text.chars().any(char::is_control),
        "^[!-~]+$" => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
        other => panic!("this test does not support the pattern {other}"),
    }
}

#[test]
fn every_link_leads_somewhere() {
    for document in documents() {
        let text = read(&document);
        let folder = repository().join(&document).parent().expect("a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { repository().join(&document) } else { folder.join(path) };
            assert!(target.exists(), "{document}: {link} leads nowhere");
            assert!(anchor.is_empty() || anchors(&read(&target)).contains(anchor), "{document}: no heading for {link}");
        }
    }
}

/// Heading anchors as GitHub generates them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_file_that_is_named_exists() {
    for document in documents() {
        let text = read(&document);
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = ["crates/", "deploy/", "proto/", "tests/"].iter().any(|folder| word.starts_with(folder));
            if is_path && !word.contains(['*', '<', ' ', '…']) {
                assert!(repository().join(word).exists(), "{document}: there is no {word}");
            }
        }
    }
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = read("Makefile");
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        let inline = text.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("make "));
        let blocks = text.lines().filter_map(|line| line.strip_prefix("    make "));
        for rest in inline.chain(blocks) {
            let target = rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default();
            named += 1;
            assert!(makefile.contains(&format!("\n{target}:")), "{document}: there is no make {target}");
        }
    }
    assert!(named >= 3, "only {named} targets were found: update the search pattern of this test");
}
