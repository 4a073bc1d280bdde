//! Configuration by environment variables. Reading a setting also documents the setting, and all mistakes are reported
//! at once.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use fanfare_credentials::Secret;
use fanfare_domain::time::parse_duration;

/// Environment of a process, and the settings read so far.
pub struct Environment {
    values: HashMap<String, String>,
    settings: Vec<Setting>,
    mistakes: Vec<String>,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
    /// True if a file may hold the value.
    is_secret: bool,
}

impl Setting {
    fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self { name, default, meaning, is_secret: false }
    }
}

/// All mistakes in the environment of a process.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} mistake(s):\n  {}\nEvery setting is described in deploy/settings.md.", .0.len(), .0.join("\n  "))]
pub struct ConfigurationError(Vec<String>);

impl Environment {
    /// Reads the variables of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars())
    }

    /// Creates an environment of these variables. An empty value counts as unset.
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = values.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { values, settings: Vec::new(), mistakes: Vec::new() }
    }

    /// Reads a setting that must be set.
    pub fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str, meaning: &'static str) -> Option<T> {
        let value = self.optional(name, meaning);
        self.require(name, meaning);
        value
    }

    /// Reads a secret that must be set.
    pub fn required_secret<T: FromStr<Err: fmt::Display>>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
    ) -> Option<(T, Secret)> {
        let secret = self.secret(name, meaning);
        self.require(name, meaning);
        secret
    }

    /// Reads a secret that may be absent: from the variable, or from the file named by the variable `<name>_FILE`.
    /// Returns the value, and the source for later readings.
    pub fn secret<T: FromStr<Err: fmt::Display>>(
        &mut self,
        name: &'static str,
        meaning: &'static str,
    ) -> Option<(T, Secret)> {
        self.settings.push(Setting { is_secret: true, ..Setting::new(name, "", meaning) });
        let (file_name, value) = (file_variable(name), self.values.get(name));
        let (source, secret) = match (value, self.values.get(&file_name)) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.mistakes.push(format!("{name} and {file_name} are both set: set only one of them"));
                return None;
            }
            (Some(value), None) => (name, Secret::new(value)),
            (None, Some(path)) => match Secret::in_file(path) {
                Ok(secret) => (file_name.as_str(), secret),
                Err(error) => {
                    self.mistakes.push(format!("{file_name}: cannot read {path}: {error}"));
                    return None;
                }
            },
        };
        let value = secret.text().parse().map_err(|error| self.mistakes.push(format!("{source}: {error}"))).ok()?;
        Some((value, secret))
    }

    fn require(&mut self, name: &'static str, meaning: &'static str) {
        if let Some(setting) = self.settings.last_mut() {
            setting.default = "(required)";
        }
        let is_secret = self.settings.last().is_some_and(|setting| setting.is_secret);
        let is_set = |name: &str| self.values.contains_key(name);
        if !(is_set(name) || is_secret && is_set(&file_variable(name))) {
            self.mistakes.push(format!("{name} is not set: {meaning}"));
        }
    }

    /// Reads a setting that may be absent.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str, meaning: &'static str) -> Option<T> {
        self.settings.push(Setting::new(name, "", meaning));
        let value = self.values.get(name)?;
        // The message omits the value, which may be a secret.
        value.parse().map_err(|error| self.mistakes.push(format!("{name}: {error}"))).ok()
    }

    /// Reads a setting with a default.
    pub fn with_default<T: FromStr<Err: fmt::Display>>(
        &mut self,
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Option<T> {
        self.settings.push(Setting::new(name, default, meaning));
        let value = self.values.get(name).map_or(default, String::as_str);
        value.parse().map_err(|error| self.mistakes.push(format!("{name}: {error}"))).ok()
    }

    /// Reads a number with a default and bounds.
    pub fn number(
        &mut self,
        name: &'static str,
        default: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
        meaning: &'static str,
    ) -> Option<usize> {
        let number = self.with_default(name, default, meaning)?;
        if bounds.contains(&number) {
            return Some(number);
        }
        self.mistakes.push(format!("{name}: {number} is not between {} and {}", bounds.start(), bounds.end()));
        None
    }

    /// Reads a duration such as `500ms`, `10s`, `5m`, `24h` or `30d`, with a default.
    pub fn duration(&mut self, name: &'static str, default: &'static str, meaning: &'static str) -> Option<Duration> {
        self.with_default::<Time>(name, default, meaning).map(|time| time.0)
    }

    /// Reads a duration of at least `least`.
    pub fn duration_of_at_least(
        &mut self,
        name: &'static str,
        default: &'static str,
        least: Duration,
        meaning: &'static str,
    ) -> Option<Duration> {
        let time = self.duration(name, default, meaning)?;
        if time < least {
            self.mistakes.push(format!("{name}: {time:?} is too short; give {least:?} or more"));
            return None;
        }
        Some(time)
    }

    /// Reads a list separated by commas, empty if the variable is unset.
    pub fn list<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str, meaning: &'static str) -> Option<Vec<T>> {
        self.settings.push(Setting::new(name, "", meaning));
        let value = self.values.get(name).map_or("", String::as_str);
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| entry.parse().map_err(|error| self.mistakes.push(format!("{name}: {entry:?}: {error}"))).ok())
            .collect()
    }

    /// True if a variable is set.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Text of a setting that was read: the variable, or the default.
    pub(crate) fn text(&self, name: &str) -> &str {
        let default =
            || self.settings.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default);
        self.values.get(name).map_or_else(default, String::as_str)
    }

    /// Adds a mistake found behind a setting, such as in a file named by the setting.
    pub fn mistake(&mut self, mistake: impl fmt::Display) {
        self.mistakes.push(mistake.to_string());
    }

    /// Returns the configuration built from the settings.
    ///
    /// # Errors
    /// All mistakes, if any.
    pub fn finish<T>(self, configuration: Option<T>) -> Result<T, ConfigurationError> {
        match configuration {
            Some(configuration) if self.mistakes.is_empty() => Ok(configuration),
            _ => Err(ConfigurationError(self.mistakes)),
        }
    }

    /// All settings read so far, as a Markdown table.
    pub fn reference(&self) -> String {
        let row = |setting: &Setting| {
            let default = match setting.default {
                "" => String::new(),
                "(required)" => "(required)".to_owned(),
                default => format!("`{default}`"),
            };
            let or_file =
                if setting.is_secret { format!(" or `{}`", file_variable(setting.name)) } else { String::new() };
            format!("| `{}`{or_file} | {default} | {} |\n", setting.name, setting.meaning)
        };
        let rows: String = self.settings.iter().map(row).collect();
        format!("| variable | default | meaning |\n|---|---|---|\n{rows}")
    }
}

/// Name of the variable that names a secret's file.
fn file_variable(name: &str) -> String {
    format!("{name}_FILE")
}

struct Time(Duration);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected a whole number with the unit ms, s, m, h or d, such as 10s";
        parse_duration(text).map(Self).ok_or(FORM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(values: &[(&str, &str)]) -> Environment {
        Environment::new(values.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn reports_all_mistakes_at_once_and_no_value() {
        let mut environment = environment(&[("PORT", "s3cret"), ("SIZE", "0"), ("WAIT", "10"), ("EMPTY", "")]);
        let port: Option<u16> = environment.with_default("PORT", "8080", "a port");
        environment.number("SIZE", "5", 1..=10, "a size");
        environment.duration("WAIT", "10s", "a wait");
        environment.required::<String>("EMPTY", "a text");
        let error = environment.finish(port).expect_err("mistakes").to_string();
        for name in ["PORT", "SIZE", "WAIT", "EMPTY"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains("s3cret"));
    }

    #[test]
    fn a_secret_is_a_value_or_a_file() {
        let path = std::env::temp_dir().join(format!("fanfare-port-{}", std::process::id()));
        std::fs::write(&path, "8080\n").expect("a file");
        let path = path.to_str().expect("a path");
        let mut environment = environment(&[
            ("VALUE", "80"),
            ("FILE_FILE", path),
            ("BOTH", "80"),
            ("BOTH_FILE", path),
            ("LOST_FILE", "/nowhere"),
            ("BAD", "s3cret"),
        ]);
        let read = |environment: &mut Environment, name| environment.required_secret::<u16>(name, "a port");
        assert_eq!(read(&mut environment, "VALUE").map(|(port, _)| port), Some(80));
        assert!(environment.mistakes.is_empty());
        let (port, secret) = read(&mut environment, "FILE").expect("a port");
        assert_eq!((port, secret.is_in_file()), (8080, true));
        assert!(environment.mistakes.is_empty());
        for name in ["BOTH", "LOST", "BAD", "ABSENT"] {
            assert!(read(&mut environment, name).is_none(), "{name}");
        }
        assert!(environment.secret::<u16>("ABSENT_TOO", "a port").is_none());
        assert!(environment.reference().contains("| `FILE` or `FILE_FILE` | (required) | a port |"));
        let error = environment.finish::<()>(None).expect_err("mistakes").to_string();
        assert_eq!(error.lines().count(), 6, "{error}");
        assert!(error.contains("LOST_FILE: cannot read /nowhere") && !error.contains("s3cret"), "{error}");
        std::fs::remove_file(path).expect("a file");
    }

    #[test]
    fn reads_values_and_defaults() {
        let mut environment = environment(&[("LIST", "10.0.0.0/8, ,x"), ("WAIT", "1500ms")]);
        assert_eq!(environment.list::<String>("LIST", "a list"), Some(vec!["10.0.0.0/8".to_owned(), "x".to_owned()]));
        assert_eq!(environment.duration("WAIT", "10s", "a wait"), Some(Duration::from_millis(1500)));
        assert_eq!(environment.duration("OTHER", "30d", "a wait"), Some(Duration::from_secs(30 * 86400)));
        assert!(environment.reference().contains("| `OTHER` | `30d` | a wait |"));
        assert!(environment.finish(Some(())).is_ok());
    }
}
