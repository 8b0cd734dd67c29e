//! Rocket's own settings as variables, `ROCKET_…`, over those in its file.

use std::collections::{BTreeMap, BTreeSet};

use rocket::figment::value::Value;

const PREFIX: &str = "ROCKET_";

/// These say which file and which part of it is read, see [`Sources`](super::Sources).
const OF_THE_FILE: [&str; 2] = ["config", "profile"];

/// The variables that are set, and which of them were asked for.
pub(super) struct RocketVariables {
    set: BTreeMap<String, Variable>,
    known: BTreeSet<String>,
}

struct Variable {
    name: String,
    value: Value,
}

impl RocketVariables {
    pub(super) fn of(env: &BTreeMap<String, String>) -> Self {
        let set = env.iter().filter_map(|(name, text)| {
            // In any case, as Rocket reads them.
            let prefix = name.get(..PREFIX.len())?;
            let key = name[PREFIX.len()..].to_lowercase();
            let is_one = prefix.eq_ignore_ascii_case(PREFIX) && !OF_THE_FILE.contains(&&*key);
            let value = text.parse().unwrap_or_else(|never| match never {});
            is_one.then(|| (key, Variable { name: name.clone(), value }))
        });
        Self { set: set.collect(), known: BTreeSet::new() }
    }

    /// The variable that sets `key`, and to what.
    pub(super) fn get(&mut self, key: &str) -> Option<(&str, &Value)> {
        self.known.insert(key.to_owned());
        self.set.get(key).map(|variable| (&*variable.name, &variable.value))
    }

    /// The variables for which nobody has asked.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        let unknown = self.set.iter().filter(|(key, _)| !self.known.contains(*key));
        unknown.map(|(_, variable)| &*variable.name)
    }
}
