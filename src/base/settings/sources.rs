//! Reading settings out of their sources, and gathering what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rocket::figment::providers::{Format, Toml};
use rocket::figment::value::{Dict, Map, Value};
use rocket::figment::{Profile, Provider};

use super::rocket::RocketVariables;
use super::secret::Secret;

/// Everything that is wrong with the configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

/// The sources, and the mistakes found in them so far.
pub struct Sources {
    env: BTreeMap<String, String>,
    file: Dict,
    /// Every key of the file, those of other profiles included.
    keys: BTreeSet<String>,
    rocket: RocketVariables,
    known: BTreeSet<String>,
    mistakes: Vec<String>,
}

impl Sources {
    /// This process's environment alone.
    #[must_use]
    pub fn of_environment() -> Self {
        Self::new(environment(), "")
    }

    /// This process's environment and its `Rocket.toml`.
    #[must_use]
    pub(crate) fn of_this_process() -> Self {
        Self::of(environment())
    }

    /// Given variables, and the `Rocket.toml` that they name or that is in the working directory.
    #[must_use]
    pub(crate) fn of(env: BTreeMap<String, String>) -> Self {
        let mut mistakes = Vec::new();
        let named = env.get("ROCKET_CONFIG").cloned();
        let path = PathBuf::from(named.as_deref().unwrap_or("Rocket.toml"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                if named.is_some() || error.kind() != std::io::ErrorKind::NotFound {
                    mistakes.push(format!("{}: {error}", path.display()));
                }
                String::new()
            }
        };
        let mut sources = Self::new(env, &text);
        sources.mistakes.append(&mut mistakes);
        sources
    }

    /// Given variables and the text of a `Rocket.toml`.
    #[must_use]
    pub fn new(env: BTreeMap<String, String>, toml: &str) -> Self {
        let mut mistakes = Vec::new();
        let profile = env
            .get("ROCKET_PROFILE")
            .map_or(rocket::Config::DEFAULT_PROFILE, |name| Profile::new(name));
        let profiles = Toml::string(toml).nested().data().unwrap_or_else(|error| {
            // The rest of the message quotes the file, and with it perhaps a secret.
            let text = error.to_string();
            mistakes.push(format!("Rocket.toml: {}", text.lines().next().unwrap_or_default()));
            Map::new()
        });
        let keys = profiles.values().flat_map(|dict| dict.keys().cloned()).collect();
        let file = merged(&profiles, &profile);
        let env = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let rocket = RocketVariables::of(&env);
        Self { env, file, keys, rocket, known: BTreeSet::new(), mistakes }
    }

    /// Adds a mistake to the list.
    pub(crate) fn mistake(&mut self, what: impl Into<String>) {
        self.mistakes.push(what.into());
    }

    /// How many mistakes there are so far.
    #[must_use]
    pub(crate) fn mistakes(&self) -> usize {
        self.mistakes.len()
    }

    /// Whether the variable `name` is set.
    #[must_use]
    pub(crate) fn is_in_environment(&self, name: &str) -> bool {
        self.env.contains_key(name)
    }

    /// A variable that is no setting of ours, as a library reads it.
    #[must_use]
    pub(crate) fn environment(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    /// Whether `name` is set anywhere, to whatever.
    #[must_use]
    pub(crate) fn is_set(&mut self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A text that is not blank.
    pub(crate) fn text(&mut self, name: &str, default: &str) -> String {
        let text = self.raw(name).unwrap_or_else(|| default.to_owned());
        if text.trim().is_empty() {
            self.mistake(format!("{name}: is blank"));
        }
        text.trim().to_owned()
    }

    fn raw(&mut self, name: &str) -> Option<String> {
        let key = name.to_lowercase();
        self.known.insert(key.clone());
        if let Some(value) = self.env.get(name) {
            return Some(value.clone());
        }
        match self.file.get(&key)? {
            Value::String(_, text) => Some(text.clone()),
            Value::Bool(_, value) => Some(value.to_string()),
            Value::Num(_, number) => number
                .to_i128()
                .map(|whole| whole.to_string())
                .or_else(|| number.to_u128().map(|whole| whole.to_string()))
                .or_else(|| number.to_f64().map(|float| float.to_string())),
            _ => {
                self.mistake(format!("{key} in Rocket.toml: expected a plain value"));
                None
            }
        }
    }

    /// An optional setting that is `expected`.
    pub(crate) fn optional<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let text = self.raw(name)?;
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.mistake(format!("{name}: expected {expected}, found `{text}`"));
        }
        parsed
    }

    /// A setting that is `expected`.
    pub(crate) fn value<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        self.optional(name, expected).unwrap_or(default)
    }

    /// A whole number within `range`.
    pub(crate) fn number<T>(&mut self, name: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        self.optional_number(name, range).unwrap_or(default)
    }

    /// A whole number within `range`, if it is set.
    pub(crate) fn optional_number<T>(&mut self, name: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.optional(name, &expected)?;
        if range.contains(&value) {
            return Some(value);
        }
        self.mistake(format!("{name}: expected {expected}, found `{value}`"));
        None
    }

    /// A number that is neither infinite nor NaN.
    pub(crate) fn finite(&mut self, name: &str, default: f64) -> f64 {
        let value: f64 = self.value(name, default, "a number");
        if value.is_finite() {
            return value;
        }
        self.mistake(format!("{name}: expected a finite number, found `{value}`"));
        default
    }

    /// A path to a file that can be read.
    pub(crate) fn readable_file(&mut self, name: &str) -> Option<PathBuf> {
        let path: PathBuf = self.optional(name, "a file")?;
        if let Err(error) = std::fs::File::open(&path) {
            self.mistake(format!("{name}: cannot read {}: {error}", path.display()));
        }
        Some(path)
    }

    /// The secret `name`, or what stands in the file that `<name>_FILE` names, less its last
    /// line break.
    pub(crate) fn optional_secret(&mut self, name: &str) -> Option<String> {
        let file_name = format!("{name}_FILE");
        let file: Option<PathBuf> = self.optional(&file_name, "a file");
        match (self.raw(name), file) {
            (Some(_), Some(_)) => {
                self.mistake(format!("{name} and {file_name} are both set, set one"));
                None
            }
            (value, None) => value,
            (None, Some(path)) => self.secret_file(&file_name, &path),
        }
    }

    fn secret_file(&mut self, name: &str, path: &Path) -> Option<String> {
        match Secret::read(path) {
            Ok(secret) => Some(secret.expose().to_owned()),
            Err(problem) => {
                self.mistake(format!("{name}: {problem}"));
                None
            }
        }
    }

    /// What `Rocket.toml` says of `keys`, as it stands there.
    pub(crate) fn entries(&mut self, keys: &[&str]) -> Dict {
        self.known.extend(keys.iter().map(|key| (*key).to_owned()));
        let is_asked_for = |key: &String| keys.contains(&key.as_str());
        self.file
            .iter()
            .filter(|(key, _)| is_asked_for(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// What is said of Rocket's own `key`, by a variable or in `Rocket.toml`, and where.
    pub(crate) fn rocket(&mut self, key: &str) -> Option<(String, Value)> {
        let in_file = self.entries(&[key]).remove(key);
        match self.rocket.get(key) {
            Some((variable, value)) => Some((variable.to_owned(), value.clone())),
            None => in_file.map(|value| ("Rocket.toml".to_owned(), value)),
        }
    }

    /// Refuses Rocket's own `key`, in `Rocket.toml` and as a variable, and says why.
    pub(crate) fn refuse_rocket(&mut self, key: &str, reason: &str) {
        self.known.insert(key.to_owned());
        if self.keys.contains(key) {
            self.mistake(format!("{key} in Rocket.toml: has no effect here: {reason}"));
        }
        if let Some((variable, _)) = self.rocket.get(key) {
            let mistake = format!("{variable}: has no effect here: {reason}");
            self.mistake(mistake);
        }
    }

    /// The mistakes in what was asked for.
    ///
    /// # Errors
    /// If there are any.
    pub fn mistakes_so_far(self) -> Result<(), Mistakes> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(Mistakes(self.mistakes)) }
    }

    /// A line for each key and variable that nobody has asked for.
    #[must_use]
    pub(crate) fn unknown(&self) -> Vec<String> {
        let keys = self.keys.iter().filter(|key| !self.known.contains(*key));
        let keys = keys.map(|key| format!("{key} in Rocket.toml: unknown key"));
        let variables = self.rocket.unknown().map(|variable| {
            format!("{variable}: unknown variable, no setting begins with ROCKET_ but those of Rocket itself")
        });
        keys.chain(variables).collect()
    }

    /// The mistakes, those of unknown keys included; to be called last.
    ///
    /// # Errors
    /// If there are any.
    pub fn finish(mut self) -> Result<(), Mistakes> {
        let mut unknown = self.unknown();
        self.mistakes.append(&mut unknown);
        self.mistakes_so_far()
    }
}

/// The variables of this process.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value))).collect()
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The values of the default profile, over them those of `selected`, over both the global ones.
fn merged(profiles: &Map<Profile, Dict>, selected: &Profile) -> Dict {
    [&Profile::Default, selected, &Profile::Global]
        .into_iter()
        .filter_map(|profile| profiles.get(profile))
        .flat_map(|dict| dict.iter().map(|(key, value)| (key.clone(), value.clone())))
        .collect()
}
