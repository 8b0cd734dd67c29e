//! The names of devices, put into `telemetry_devices` with their first row.
//!
//! A batch whose devices are all known costs a look into a set here and nothing there. What is new is
//! inserted in the batch's own transaction, after its rows: so no name is there without a row, and none
//! is missing as soon as rows can be read. Every transaction takes the locks of rows first and of names
//! then, each in an order that is the same for all, so no two wait for each other.
//!
//! The list serves readers; rows must not wait for it. Where it takes no names, rows go in without, and
//! [`super::upkeep`] looks for the names later.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::failure::Failure;
use super::session::Session;
use super::table::DEVICES;

/// Names that are kept in mind, at 8 to 16 bytes each; one more, and it begins anew.
const MOST_KNOWN: usize = 1_000_000;
/// What is in mind is asked again after that: somebody may have removed names, or restored an older
/// database.
const TRUSTED_FOR: Duration = Duration::from_secs(10 * 60);
/// After the list took no names.
const SET_ASIDE_FOR: Duration = Duration::from_secs(60);

/// Somebody who holds the list must not hold up rows.
const LOCK_LIMIT: &str = "set local lock_timeout = '500ms'";

/// Which names are in the list for certain. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry(Arc<Mutex<RegisteredNames>>);

/// Moments are those of the clock's monotonic time.
#[derive(Debug, Default)]
struct RegisteredNames {
    /// Of names. Two in a million have the same with a chance of one in forty million, and then until
    /// [`TRUSTED_FOR`] has passed: the key is another then.
    hashes: HashSet<u64, BuildHasherDefault<Unhashed>>,
    key: RandomState,
    /// When nothing was in mind.
    since: Duration,
    set_aside: Option<Duration>,
    changes: u64,
}

impl Registry {
    /// Those of `names` that are not known, once each and sorted.
    pub(super) fn unknown<'n>(&self, names: &[&'n str], now: Duration) -> Vec<&'n str> {
        let mut known = self.lock();
        if now.saturating_sub(known.since) >= TRUSTED_FOR {
            let RegisteredNames { set_aside, changes, .. } = *known;
            let anew = RegisteredNames::default();
            *known = RegisteredNames { since: now, set_aside, changes, ..anew };
        }
        let is_new = |name: &&'n str| !known.hashes.contains(&known.key.hash_one(name));
        let mut unknown: Vec<&str> = names.iter().copied().filter(is_new).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Whether it took no names just now.
    pub(super) fn is_set_aside(&self, now: Duration) -> bool {
        self.lock().set_aside.is_some_and(|at| now.saturating_sub(at) < SET_ASIDE_FOR)
    }

    /// They are in the list, and that is committed.
    pub(super) fn learn(&self, names: &[&str]) {
        if names.is_empty() {
            return;
        }
        let mut known = self.lock();
        if known.hashes.len() + names.len() > MOST_KNOWN {
            known.hashes.clear();
        }
        for name in names {
            let hash = known.key.hash_one(name);
            known.hashes.insert(hash);
        }
        known.set_aside = None;
        known.changes += 1;
    }

    /// How often names came into the list by this service.
    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// What was in mind may not be so any more.
    pub(super) fn forget(&self) {
        let mut known = self.lock();
        known.hashes.clear();
        known.changes += 1;
    }

    /// It takes no names.
    pub(super) fn set_aside(&self, failure: &Failure, now: Duration) {
        let was_fine = self.lock().set_aside.replace(now).is_none();
        if was_fine {
            tracing::warn!(
                %failure,
                "the table telemetry_devices takes no names, so /api/v1/devices lacks those that are new; their readings are stored, and the names follow once it does: this role needs select and insert on it"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, RegisteredNames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts those of `names` that are not there, in the transaction of `session`, and commits that.
///
/// Names are written into the statement, so that all of it is one round trip.
pub(super) async fn insert_and_commit(
    session: &mut Session,
    names: &[&str],
) -> Result<(), Failure> {
    let mut sql = format!(
        "{LOCK_LIMIT};
        insert into {DEVICES} (device_id)
        select device_id from unnest(array["
    );
    for (at, name) in names.iter().enumerate() {
        sql.push_str(if at > 0 { ", " } else { "" });
        push_literal(&mut sql, name);
    }
    sql.push_str("]::text[]) as batch (device_id) on conflict (device_id) do nothing; commit");
    session.run(sql).await
}

/// As a string with escapes, which means the same whatever `standard_conforming_strings` says.
fn push_literal(sql: &mut String, text: &str) {
    sql.push_str("E'");
    for char in text.chars() {
        if matches!(char, '\'' | '\\') {
            sql.push('\\');
        }
        sql.push(char);
    }
    sql.push('\'');
}

/// For what is a hash already.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the clock begins.
    const START: Duration = Duration::ZERO;
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_name_is_unknown_once_and_known_after_it_was_learned() {
        let registry = Registry::default();
        let names = ["a", "c", "b", "a", "c"];
        let unknown = || registry.unknown(&names, START);
        assert_eq!(unknown(), ["a", "b", "c"]);
        registry.learn(&["a", "c"]);
        assert_eq!(unknown(), ["b"]);
        registry.forget();
        assert_eq!(unknown(), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_in_mind_is_asked_again_every_ten_minutes() {
        let registry = Registry::default();
        registry.learn(&["a"]);
        let changes = registry.changes();
        let mut over = START;
        for _ in 0..2 {
            over += Duration::from_secs(10 * 60);
            assert_eq!(registry.unknown(&["a"], over.saturating_sub(MOMENT)), [""; 0]);
            assert_eq!(registry.unknown(&["a"], over), ["a"]);
            assert_eq!(registry.unknown(&["a"], over + MOMENT), ["a"], "nobody has put it in");
            registry.learn(&["a"]);
            assert_eq!(registry.unknown(&["a"], over + MOMENT), [""; 0]);
        }
        assert_eq!(registry.changes(), changes + 2, "to ask again changes nothing");
    }

    #[test]
    fn whatever_a_name_holds_it_is_one_string() {
        let literal = |name| {
            let mut sql = String::new();
            push_literal(&mut sql, name);
            sql
        };
        assert_eq!(literal("fühler-1"), "E'fühler-1'");
        assert_eq!(literal(r"'); drop table telemetry; --"), r"E'\'); drop table telemetry; --'");
        assert_eq!(literal(r"\'"), r"E'\\\''");
        assert_eq!(literal(r"a\"), r"E'a\\'");
    }

    #[test]
    fn names_are_kept_in_mind_up_to_a_bound() {
        let registry = Registry::default();
        let names: Vec<String> = (0..MOST_KNOWN / 100).map(|n| n.to_string()).collect();
        for part in 0..150 {
            let names: Vec<String> = names.iter().map(|name| format!("{part}-{name}")).collect();
            registry.learn(&names.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(registry.lock().hashes.len() <= MOST_KNOWN);
        }
    }

    #[test]
    fn a_list_that_takes_no_names_is_set_aside_until_it_does() {
        let registry = Registry::default();
        assert!(!registry.is_set_aside(START));
        registry.set_aside(&Failure::unavailable("permission denied"), START);
        assert!(registry.is_set_aside(START));
        registry.learn(&["a"]);
        assert!(!registry.is_set_aside(START));
    }

    #[test]
    fn a_list_that_takes_no_names_is_tried_again_after_a_minute() {
        let registry = Registry::default();
        let failure = Failure::unavailable("permission denied");
        registry.set_aside(&failure, START);
        let over = START + Duration::from_secs(60);
        assert!(registry.is_set_aside(over.saturating_sub(MOMENT)));
        assert!(!registry.is_set_aside(over));
        registry.set_aside(&failure, over);
        assert!(registry.is_set_aside(over + MOMENT));
        // That names are asked for again says nothing of the list.
        let long_after = START + TRUSTED_FOR;
        registry.set_aside(&failure, long_after);
        registry.unknown(&["a"], long_after);
        assert!(registry.is_set_aside(long_after));
    }
}
