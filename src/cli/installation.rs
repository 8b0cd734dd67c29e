//! An installation as a service of systemd: its directory, and the environment that the unit makes of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

mod unit;
mod user;

pub(super) use unit::Unit;
pub(super) use user::{User, Wanted};

/// Where it is, unless somebody says otherwise.
pub(super) const DIR: &str = "/etc/iot-ingestor";

/// Its settings, a file for `EnvironmentFile=`.
pub(super) const SETTINGS_FILE: &str = "ingestor.env";

/// Its secrets, a directory for `LoadCredential=`.
pub(super) const SECRETS_DIR: &str = "secrets";

/// Where the service finds its copies of them: `CREDENTIALS` and the name of the file.
pub(super) const CREDENTIALS: &str = "/run/credentials/iot-ingestor.service/secret_";

/// The user that it runs as.
const USER: &str = "iot-ingestor";

/// What the unit sets for an installation in [`DIR`].
const OF_THE_UNIT: [(&str, &str); 2] =
    [("WAL_DIR", "/var/lib/iot-ingestor/wal"), ("ROCKET_CONFIG", "/etc/iot-ingestor/Rocket.toml")];

/// The environment of the service that is installed in `dir`.
///
/// # Errors
/// If its settings cannot be read.
pub(super) fn environment(dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(dir.join(SETTINGS_FILE))?;
    Ok(environment_of(dir, &text))
}

/// The same, if `text` were its settings.
pub(super) fn environment_of(dir: &Path, text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if dir == Path::new(DIR) {
        all.extend(OF_THE_UNIT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let file = dir.join("Rocket.toml");
    if file.exists() {
        all.insert("ROCKET_CONFIG".to_owned(), file.display().to_string());
    }
    all.extend(assignments(text).map(|(name, value)| (name.to_owned(), value.to_owned())));
    all
}

/// `environment`, as it holds outside of the service that is installed in `dir`: of its secrets, the files
/// themselves are named and not the copies, which are those of a service that runs, and of the time when it
/// started.
pub(super) fn outside(
    dir: &Path,
    environment: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let secret = |name: &str| dir.join(SECRETS_DIR).join(name).display().to_string();
    let resolved = |value: String| value.strip_prefix(CREDENTIALS).map(secret).unwrap_or(value);
    environment.into_iter().map(|(name, value)| (name, resolved(value))).collect()
}

/// What systemd.exec(5) takes from a file, but for lines that are continued.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        Some((name.trim(), quoted('"').or_else(|| quoted('\'')).unwrap_or(value)))
    })
}

/// The directory that is meant when none is named: that of an installation, if there is one and nothing
/// speaks of another configuration.
pub(super) fn found(names: impl IntoIterator<Item = String>) -> Option<PathBuf> {
    let is_set = |name: &String| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut names = names.into_iter().chain(["ROCKET_CONFIG".to_owned()]);
    let dir = Path::new(DIR);
    (dir.join(SETTINGS_FILE).exists() && !names.any(|name| is_set(&name))).then(|| dir.to_owned())
}

/// The unit of the service that is installed in `dir`; `None` where it has none, or none is known.
pub(super) fn unit(dir: &Path) -> Option<Unit> {
    (dir == Path::new(DIR)).then(Unit::of_this_machine)?
}

/// The user of the service that is installed in `dir`; `None` where that is unknown.
pub(super) fn service_user(dir: &Path) -> Option<User> {
    if dir != Path::new(DIR) {
        return None;
    }
    let (passwd, groups) = user::of_this_machine().ok()?;
    unit(dir)
        .map_or_else(|| User::known(USER, &passwd, &groups), |unit| unit.user(&passwd, &groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_systemd_reads_them_and_secrets_where_they_come_from() {
        let dir = tempfile::tempdir().unwrap();
        let text = "# A=1\n\n; B=2\n C = 3 \nD=\"four \"\nE='5'\nF=\nno assignment\n\
            G_FILE=/run/credentials/iot-ingestor.service/secret_g\nC=6\n";
        std::fs::write(dir.path().join(SETTINGS_FILE), text).unwrap();
        let found = outside(dir.path(), environment(dir.path()).unwrap());
        let g = dir.path().join("secrets/g").display().to_string();
        let expected = [("C", "6"), ("D", "four "), ("E", "5"), ("F", ""), ("G_FILE", &g)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, expected.into());
        assert!(environment(&dir.path().join("none")).is_err());
    }

    #[test]
    fn what_the_unit_sets_is_what_is_taken_for_it() {
        let unit = include_str!("../../deploy/systemd/iot-ingestor.service");
        for (name, value) in OF_THE_UNIT {
            let value = value.replace("/var/lib", "%S");
            assert!(unit.contains(&format!("Environment={name}={value}\n")), "{name}");
        }
        assert!(unit.contains(&format!("User={USER}\nGroup={USER}\n")));
        assert!(unit.contains(&format!("EnvironmentFile={DIR}/{SETTINGS_FILE}\n")));
        assert!(unit.contains(&format!("LoadCredential=secret:{DIR}/{SECRETS_DIR}\n")));
    }

    #[test]
    fn an_older_systemd_is_told_every_secret_that_the_settings_name() {
        let settings = include_str!("../../deploy/systemd/ingestor.env");
        let older = include_str!("../../deploy/systemd/older-systemd.conf");
        let prefix = format!("_FILE={CREDENTIALS}");
        let names: Vec<&str> =
            settings.lines().filter_map(|line| Some(line.split_once(&prefix)?.1)).collect();
        assert!(names.contains(&"database-url") && names.contains(&"read-token"), "{names:?}");
        for name in names {
            for line in [
                format!("LoadCredential=secret_{name}:{DIR}/{SECRETS_DIR}/{name}\n"),
                format!("SetCredential=secret_{name}:\n"),
            ] {
                assert!(older.contains(&line), "{line}");
            }
        }
    }
}
