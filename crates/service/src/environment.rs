//! Configuration by environment variables. Reading a setting also documents the setting, and all mistakes are reported
//! at once.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use fanfare_domain::duration::parse_duration;

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
        if let Some(setting) = self.settings.last_mut() {
            setting.default = "(required)";
        }
        if !self.values.contains_key(name) {
            self.mistakes.push(format!("{name} is not set: {meaning}"));
        }
        value
    }

    /// Reads a setting that may be absent.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str, meaning: &'static str) -> Option<T> {
        self.settings.push(Setting { name, default: "", meaning });
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
        self.settings.push(Setting { name, default, meaning });
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
        self.settings.push(Setting { name, default: "", meaning });
        let value = self.values.get(name).map_or("", String::as_str);
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| entry.parse().map_err(|error| self.mistakes.push(format!("{name}: {entry:?}: {error}"))).ok())
            .collect()
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
            format!("| `{}` | {default} | {} |\n", setting.name, setting.meaning)
        };
        let rows: String = self.settings.iter().map(row).collect();
        format!("| variable | default | meaning |\n|---|---|---|\n{rows}")
    }
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
    fn reads_values_and_defaults() {
        let mut environment = environment(&[("LIST", "10.0.0.0/8, ,x"), ("WAIT", "1500ms")]);
        assert_eq!(environment.list::<String>("LIST", "a list"), Some(vec!["10.0.0.0/8".to_owned(), "x".to_owned()]));
        assert_eq!(environment.duration("WAIT", "10s", "a wait"), Some(Duration::from_millis(1500)));
        assert_eq!(environment.duration("OTHER", "30d", "a wait"), Some(Duration::from_secs(30 * 86400)));
        assert!(environment.reference().contains("| `OTHER` | `30d` | a wait |"));
        assert!(environment.finish(Some(())).is_ok());
    }
}
