//! An installation as a service of systemd: its directory, and the environment that the unit makes of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

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

/// The environment of the service that is installed in `dir`. Of its secrets, the files themselves are
/// named and not the copies, which are those of a service that runs, and of the time when it started.
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
    all.extend(assignments(text).map(|(name, value)| (name.to_owned(), resolved(dir, value))));
    all
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

fn resolved(dir: &Path, value: &str) -> String {
    let secret = |name: &str| dir.join(SECRETS_DIR).join(name).display().to_string();
    value.strip_prefix(CREDENTIALS).map_or_else(|| value.to_owned(), secret)
}

/// The directory that is meant when none is named: that of an installation, if there is one and nothing
/// speaks of another configuration.
pub(super) fn found(names: impl IntoIterator<Item = String>) -> Option<PathBuf> {
    let is_set = |name: &String| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut names = names.into_iter().chain(["ROCKET_CONFIG".to_owned()]);
    let dir = Path::new(DIR);
    (dir.join(SETTINGS_FILE).exists() && !names.any(|name| is_set(&name))).then(|| dir.to_owned())
}

/// The user that a service runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    pub(super) group: u32,
}

/// That of the service which is installed in `dir`; `None` where that is unknown.
pub(super) fn service_user(dir: &Path) -> Option<User> {
    if dir != Path::new(DIR) {
        return None;
    }
    user_of(&std::fs::read_to_string("/etc/passwd").ok()?)
}

fn user_of(passwd: &str) -> Option<User> {
    let fields = passwd.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'))?;
    let mut fields = fields.split(':').skip(1);
    Some(User { id: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
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
        let found = environment(dir.path()).unwrap();
        let g = dir.path().join("secrets/g").display().to_string();
        let expected = [("C", "6"), ("D", "four "), ("E", "5"), ("F", ""), ("G_FILE", &g)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, expected.into());
        assert!(environment(&dir.path().join("none")).is_err());
    }

    #[test]
    fn the_user_of_the_service_is_the_one_of_that_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\niot-ingestor-2:x:7:8::/:/bin/sh\n\
            iot-ingestor:x:998:997:IoT:/var/lib/iot-ingestor:/usr/sbin/nologin\n";
        assert_eq!(user_of(passwd), Some(User { id: 998, group: 997 }));
        assert_eq!(user_of("root:x:0:0::/root:/bin/sh\niot-ingestor:x\n"), None);
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
