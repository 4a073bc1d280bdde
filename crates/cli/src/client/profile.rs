//! Profiles: URL and key of each environment.

use std::{collections::BTreeMap, env, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

/// Name of the profile without a choice.
const DEFAULT: &str = "default";

/// URL and key of a deployment.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// URL of the API, with or without `/api/v1`.
    url: String,
    pub(super) key: String,
    /// Application, for an admin key.
    pub(super) application: Option<String>,
}

impl Profile {
    /// Reads the named profile. Without a name: FANFARE_API and FANFARE_KEY, else the profile `default`.
    pub(super) fn read(name: Option<&str>) -> anyhow::Result<Self> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        match (name, variable("FANFARE_API"), variable("FANFARE_KEY")) {
            (None, Some(url), Some(key)) => return Ok(Self { url, key, application: None }),
            (None, Some(_), None) => bail!("FANFARE_API is set, and FANFARE_KEY is missing: set both, or a profile"),
            (None, None, Some(_)) => bail!("FANFARE_KEY is set, and FANFARE_API is missing: set both, or a profile"),
            _ => {}
        }
        let name = name.unwrap_or(DEFAULT);
        let path = path()?;
        let missing = "set FANFARE_API and FANFARE_KEY, or write a profile with url and key into this file";
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}: {missing}", path.display()))?;
        let mode = fs::metadata(&path)?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!("other users can read the keys in {0}: run chmod 600 {0}", path.display());
        }
        Self::of(&text, name).with_context(|| path.display().to_string())
    }

    fn of(text: &str, name: &str) -> anyhow::Result<Self> {
        // Without the faulty line, which may hold a key.
        let mut profiles: BTreeMap<String, Self> = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            anyhow!("line {line}: {}", error.message())
        })?;
        let names = profiles.keys().cloned().collect::<Vec<_>>().join(", ");
        profiles.remove(name).with_context(|| format!("no profile {name:?}; there are: {names}"))
    }

    /// URL with the path `/api/v1`.
    pub(super) fn base(&self) -> String {
        let url = self.url.trim_end_matches('/');
        if url.ends_with("/api/v1") { url.to_owned() } else { format!("{url}/api/v1") }
    }
}

fn path() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("FANFARE_PROFILES") {
        return Ok(path.into());
    }
    let folder = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    Ok(folder.context("set FANFARE_API and FANFARE_KEY, or HOME for a file of profiles")?.join("fanfare/profiles.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_url_and_key() {
        let text = "[default]\nurl = 'https://a.example/'\nkey = 'k'\n[test]\nurl = 'http://b/api/v1'\nkey = 'l'\napplication = 'app_1'\n";
        let default = Profile::of(text, "default").expect("a profile");
        assert_eq!((default.base().as_str(), default.key.as_str()), ("https://a.example/api/v1", "k"));
        assert_eq!(Profile::of(text, "test").expect("a profile").base(), "http://b/api/v1");
        let error = |text, name| Profile::of(text, name).err().expect("a fault").to_string();
        let unknown = error(text, "live");
        assert!(unknown.contains("default, test"), "{unknown}");
        let unquoted = error("[default]\nurl = 'x'\nkey = fanfare_secret\n", "default");
        assert!(unquoted.contains("line 3") && !unquoted.contains("secret"), "{unquoted}");
        assert!(Profile::of("[default]\nurl = 'x'\n", "default").is_err());
        assert!(Profile::of("[default]\nurl = 'x'\nkey = 'k'\nurk = 1\n", "default").is_err());
    }
}
