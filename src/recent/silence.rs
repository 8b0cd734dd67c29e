//! Which devices are silent: those of which nothing was received for longer than they may be silent. Pure.
//!
//! A mapping says so of its devices, or else the setting for all. Of a device that was found in the table after
//! a start it is not known which mapping has brought its readings, before it sends again. If those of its
//! table differ, the longest time counts until then: nobody is called silent too early.

use std::collections::HashMap;
use std::time::Duration;

use super::settings::Settings;
use crate::telemetry::mapping::{BUILT_IN_TABLE, Mapping, Mappings, SilentAfter};
use crate::wal::log::Last;

/// Who may be silent for how long; `None`: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Silence {
    of_all: Option<Duration>,
    /// Where it is not that of all.
    of_tables: HashMap<String, Duration>,
}

impl Silence {
    /// As it is configured.
    #[must_use]
    pub(crate) fn of(settings: &Settings, mappings: &Mappings) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let of_all = settings.silent_after.map(seconds);
        let mut of_tables: HashMap<String, Duration> = HashMap::new();
        let of_mapping = |mapping: &Mapping| match mapping.silent_after() {
            SilentAfter::Seconds(own) => Some(seconds(own)),
            SilentAfter::OfAll | SilentAfter::OfTable => of_all,
        };
        // Where nothing but the built-in shape goes, the setting holds anyway.
        let mut longest = |table: &str, after: Option<Duration>| {
            let Some(after) = after else { return };
            let known = of_tables.entry(table.to_owned()).or_default();
            *known = after.max(*known);
        };
        for mapping in &mappings.list {
            longest(mapping.table(), of_mapping(mapping));
        }
        if mappings.takes_built_in {
            longest(BUILT_IN_TABLE, of_all);
        }
        of_tables.retain(|_, after| Some(*after) != of_all);
        Self { of_all, of_tables }
    }

    /// Whether no device ever counts as silent.
    #[must_use]
    pub(crate) fn is_off(&self) -> bool {
        self.of_all.is_none() && self.of_tables.is_empty()
    }

    /// For how long a device of `table` has been silent at this time of the monotonic clock, if it counts as
    /// such.
    #[must_use]
    pub(crate) fn of_device(&self, table: &str, last: &Last, now: Duration) -> Option<Duration> {
        let may_be = match last.silent_after {
            SilentAfter::Seconds(own) => Duration::from_secs(own.into()),
            SilentAfter::OfAll => self.of_all?,
            SilentAfter::OfTable => match self.of_tables.get(table) {
                Some(after) => *after,
                None => self.of_all?,
            },
        };
        Some(last.heard.age(now)).filter(|age| *age >= may_be)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::settings::Sources;
    use crate::base::time::Timestamp;
    use crate::wal::log::{Heard, LastValues};

    fn silence(setting: Option<u32>, mappings: &[(&str, Option<u32>)]) -> Silence {
        let mapping = |(at, (table, own)): (usize, &(&str, Option<u32>))| {
            let own = own.map_or(String::new(), |own| format!("silent_after = {own}\n"));
            format!(
                "[[default.mapping]]\nname = \"m{at}\"\ntopic = \"t{at}/{{d}}\"\ndevice = \"{{d}}\"\ntime = \"received\"\ntable = \"{table}\"\nfields = [\"a\"]\n{own}"
            )
        };
        let file: String = mappings.iter().enumerate().map(mapping).collect();
        let mut sources = Sources::new(BTreeMap::new(), &file);
        let mappings = Mappings::read(&mut sources);
        sources.finish().unwrap();
        Silence::of(&Settings { silent_after: setting }, &mappings)
    }

    /// The first second at which a device that was heard of at 0 is silent.
    fn silent_at(silence: &Silence, table: &str, silent_after: SilentAfter) -> Option<u64> {
        let heard = Heard::at(Duration::ZERO);
        let values = LastValues::Fields([1.0; 3]);
        let last = Last { timestamp: Timestamp::UNIX_EPOCH, values, heard, silent_after };
        let mut seconds = 0..1_000;
        seconds.find(|second| {
            let age = silence.of_device(table, &last, Duration::from_secs(*second));
            assert!(age.is_none_or(|age| age == Duration::from_secs(*second)));
            age.is_some()
        })
    }

    #[test]
    fn what_a_mapping_says_goes_before_the_setting_and_without_either_nobody_is_silent() {
        let both = silence(Some(60), &[("power", Some(5)), ("climate", None)]);
        for (table, rule, second) in [
            ("telemetry", SilentAfter::OfAll, 60),
            ("telemetry", SilentAfter::OfTable, 60),
            ("power", SilentAfter::Seconds(5), 5),
            ("climate", SilentAfter::OfAll, 60),
            // After a restart.
            ("power", SilentAfter::OfTable, 5),
            ("climate", SilentAfter::OfTable, 60),
        ] {
            assert_eq!(silent_at(&both, table, rule), Some(second), "{table} {rule:?}");
        }
        let own_alone = silence(None, &[("power", Some(5)), ("climate", None)]);
        assert!(!own_alone.is_off());
        assert_eq!(silent_at(&own_alone, "power", SilentAfter::Seconds(5)), Some(5));
        assert_eq!(silent_at(&own_alone, "telemetry", SilentAfter::OfAll), None);
        assert_eq!(silent_at(&own_alone, "climate", SilentAfter::OfTable), None);
        let none = silence(None, &[("climate", None)]);
        assert!(none.is_off() && silence(None, &[]).is_off());
        assert!(!silence(Some(1), &[]).is_off());
    }

    #[test]
    fn of_a_device_that_has_not_sent_since_the_start_the_longest_time_of_its_table_counts() {
        let two = silence(Some(60), &[("power", Some(5)), ("power", Some(90))]);
        assert_eq!(silent_at(&two, "power", SilentAfter::OfTable), Some(90));
        let beside_built_in = silence(Some(60), &[("telemetry", Some(5))]);
        assert_eq!(silent_at(&beside_built_in, "telemetry", SilentAfter::OfTable), Some(60));
    }
}
