//! The unit of the service, with what somebody has changed of it (systemd.unit(5), systemd.exec(5)): whom it
//! runs as, which secrets it is handed, where it may write, and what it does not see.
//!
//! It is read from the files, as the next start has it, and systemd is not asked: it may not run. Drop-ins for
//! all services (`service.d`) are not looked at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::user::{User, group_of};

const NAME: &str = "iot-ingestor.service";

/// Where units are; what comes first counts.
const PLACES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Directories that systemd makes for a service, and hands to its user.
const OWN: [(&str, &str); 4] = [
    ("StateDirectory", "/var/lib"),
    ("CacheDirectory", "/var/cache"),
    ("LogsDirectory", "/var/log"),
    ("RuntimeDirectory", "/run"),
];

const SPECIFIERS: [(&str, &str); 5] =
    [("%S", "/var/lib"), ("%C", "/var/cache"), ("%L", "/var/log"), ("%t", "/run"), ("%%", "%")];

/// What `[Service]` says, in its order.
#[derive(Debug, Default)]
pub(in crate::cli) struct Unit {
    assignments: Vec<(String, String)>,
}

impl Unit {
    /// The one of this machine, if there is one.
    pub(super) fn of_this_machine() -> Option<Self> {
        Self::read(&PLACES.map(PathBuf::from))
    }

    fn read(places: &[PathBuf]) -> Option<Self> {
        let text = places.iter().find_map(|place| fs::read_to_string(place.join(NAME)).ok())?;
        let mut drop_ins = BTreeMap::new();
        for entry in places.iter().flat_map(|place| fs::read_dir(place.join(format!("{NAME}.d")))) {
            for entry in entry.flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "conf") {
                    drop_ins.entry(entry.file_name()).or_insert_with(|| entry.path());
                }
            }
        }
        let drop_ins = drop_ins.values().filter_map(|path| fs::read_to_string(path).ok());
        let texts: Vec<_> = [text].into_iter().chain(drop_ins).collect();
        Some(Self::of(&texts))
    }

    /// The one that these texts make: of the unit itself, and of the drop-ins behind it.
    pub(in crate::cli) fn of(texts: &[impl AsRef<str>]) -> Self {
        texts.iter().fold(Self::default(), |mut unit, text| {
            unit.add(text.as_ref());
            unit
        })
    }

    fn add(&mut self, text: &str) {
        let text = text.replace("\\\n", " ");
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        let mut is_service = false;
        for line in lines {
            if line.starts_with('[') {
                is_service = line == "[Service]";
            } else if let Some((name, value)) = line.split_once('=').filter(|_| is_service) {
                self.assignments.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
    }

    /// The values of a setting that may be given often; an empty one takes back those before it.
    fn all(&self, name: &str) -> Vec<&str> {
        let values = self.assignments.iter().filter(|(candidate, _)| candidate == name);
        values.fold(Vec::new(), |mut all, (_, value)| {
            if value.is_empty() {
                all.clear();
            } else {
                all.push(value);
            }
            all
        })
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.all(name).pop()
    }

    fn is_set(&self, name: &str) -> bool {
        self.last(name).is_some_and(|value| matches!(value, "yes" | "true" | "1" | "on"))
    }

    /// The words of all values of a setting.
    fn words(&self, name: &str) -> Vec<String> {
        let words = self.all(name).into_iter().flat_map(str::split_whitespace);
        let expanded = |word: &str| {
            let word = word.trim_matches('"').to_owned();
            SPECIFIERS.iter().fold(word, |word, (from, to)| word.replace(from, to))
        };
        words.map(expanded).collect()
    }

    /// Whom it runs as, of those that `passwd` and `groups` know; `None` where these do not say.
    pub(super) fn user(&self, passwd: &str, groups: &str) -> Option<User> {
        if self.is_set("DynamicUser") {
            return None;
        }
        let mut user = User::known(self.last("User").unwrap_or("root"), passwd, groups)?;
        if let Some(group) = self.last("Group") {
            user.group = group_of(group, groups)?;
        }
        let others = self.words("SupplementaryGroups");
        user.others.extend(others.iter().filter_map(|name| group_of(name, groups)));
        Some(user)
    }

    /// Whether the service finds a file of this name among its credentials: one that is loaded or set by this
    /// name, or lies in a directory that is loaded, as systemd 251 and newer can.
    pub(in crate::cli) fn hands_over(&self, credential: &str) -> bool {
        let loaded = ["LoadCredential", "LoadCredentialEncrypted"];
        let set = ["SetCredential", "SetCredentialEncrypted"];
        let lines = |names: [&'static str; 2]| names.into_iter().flat_map(|name| self.all(name));
        let is_loaded = lines(loaded).any(|line| {
            let (id, path) = line.split_once(':').unwrap_or((line, ""));
            let rest = credential.strip_prefix(id);
            let is_within = rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('_'));
            rest == Some("") || (is_within && !Path::new(path).is_file())
        });
        is_loaded || lines(set).any(|line| line.split(':').next() == Some(credential))
    }

    /// Directories that systemd makes, and hands to the service's user.
    fn own(&self) -> Vec<PathBuf> {
        let below = |(name, parent): &(&str, &str)| {
            let words = self.words(name).into_iter();
            let names = words.map(|word| word.split(':').next().unwrap_or_default().to_owned());
            names.map(|name| Path::new(parent).join(name)).collect::<Vec<_>>()
        };
        OWN.iter().flat_map(below).collect()
    }

    /// Whether `path` is in a directory that systemd makes, and hands to the service's user.
    pub(in crate::cli) fn makes(&self, path: &Path) -> bool {
        is_below(path, &self.own())
    }

    /// Whether the service may write to `path`, as far as the unit decides, and finds it there the next time.
    pub(in crate::cli) fn may_write(&self, path: &Path) -> bool {
        if self.hides(path) {
            return false;
        }
        if self.last("ProtectSystem") != Some("strict") {
            return true;
        }
        let writable = self.words("ReadWritePaths").into_iter();
        let writable = writable.map(|word| PathBuf::from(word.trim_start_matches(['-', '+'])));
        let places: Vec<_> = writable.chain(self.mounted("BindPaths")).chain(self.own()).collect();
        is_below(path, &places)
    }

    /// Whether the service sees something else, or nothing, where `path` is.
    pub(in crate::cli) fn hides(&self, path: &Path) -> bool {
        let mut hidden: Vec<PathBuf> = Vec::new();
        if self.is_set("ProtectHome") || self.last("ProtectHome") == Some("tmpfs") {
            hidden.extend(["/home", "/root", "/run/user"].map(PathBuf::from));
        }
        if self.is_set("PrivateTmp") || self.last("PrivateTmp") == Some("disconnected") {
            hidden.extend(["/tmp", "/var/tmp"].map(PathBuf::from));
        }
        let shown: Vec<_> =
            self.mounted("BindPaths").chain(self.mounted("BindReadOnlyPaths")).collect();
        is_below(path, &hidden) && !is_below(path, &shown)
    }

    fn mounted(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        self.words(name).into_iter().map(|word| {
            let mut parts = word.trim_start_matches('-').split(':');
            let source = parts.next().unwrap_or_default();
            PathBuf::from(parts.next().unwrap_or(source))
        })
    }
}

/// Whether `path` is one of `places` or below it, wherever links lead.
fn is_below(path: &Path, places: &[PathBuf]) -> bool {
    let real = real(path);
    places.iter().any(|place| real.starts_with(self::real(place)))
}

/// Without links, as far as there is anything.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|dir| Some((dir, fs::canonicalize(dir).ok()?)));
    let joined = there.and_then(|(dir, real)| {
        let rest = path.strip_prefix(dir).ok()?;
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    joined.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/systemd/iot-ingestor.service");
    const OLDER: &str = include_str!("../../../deploy/systemd/older-systemd.conf");
    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nbox:x:5:6::/:/bin/sh\n\
        iot-ingestor:x:998:997::/:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\niot-ingestor:x:997:\nbox:x:6:\ncerts:x:9:\n";

    fn unit(texts: &[&str]) -> Unit {
        Unit::of(texts)
    }

    #[test]
    fn the_unit_as_shipped_writes_to_its_own_directory_alone_and_sees_no_home() {
        let unit = unit(&[SHIPPED]);
        let user = User { id: 998, group: 997, others: vec![] };
        assert_eq!(unit.user(PASSWD, GROUPS), Some(user));
        for (path, may) in [
            ("/var/lib/iot-ingestor/wal", true),
            ("/var/lib/iot-ingestor", true),
            ("/var/lib/iot-ingestor-2", false),
            ("/srv/wal", false),
            ("/tmp/wal", false),
        ] {
            assert_eq!(unit.may_write(Path::new(path)), may, "{path}");
        }
        for path in ["/root/ca.pem", "/home/box/ca.pem", "/tmp/ca.pem"] {
            assert!(unit.hides(Path::new(path)), "{path}");
        }
        assert!(!unit.hides(Path::new("/etc/ssl/ca.pem")));
        assert!(unit.makes(Path::new("/var/lib/iot-ingestor/wal")));
    }

    #[test]
    fn what_a_drop_in_says_comes_behind_the_unit_and_counts() {
        let unit = unit(&[
            SHIPPED,
            "[Service]\nUser=box\nGroup=\nGroup=box\nSupplementaryGroups=certs\n\
             ReadWritePaths=-/srv/a \\\n  +/srv/b\nBindReadOnlyPaths=/x:/home/box\n",
            "[Unit]\nReadWritePaths=/nowhere\n[Service]\n# ReadWritePaths=/nowhere\nReadWritePaths=%S/c\n",
        ]);
        let user = User { id: 5, group: 6, others: vec![9] };
        assert_eq!(unit.user(PASSWD, GROUPS), Some(user));
        for path in ["/srv/a/wal", "/srv/b", "/var/lib/c/wal"] {
            assert!(unit.may_write(Path::new(path)), "{path}");
        }
        assert!(!unit.may_write(Path::new("/nowhere")));
        assert!(!unit.hides(Path::new("/home/box/ca.pem")));
        assert!(!unit.makes(Path::new("/srv/a")));
        assert_eq!(self::unit(&["[Service]\nDynamicUser=yes\n"]).user(PASSWD, GROUPS), None);
        assert_eq!(self::unit(&["[Service]\n"]).user(PASSWD, GROUPS).map(|user| user.id), Some(0));
        let emptied =
            self::unit(&["[Service]\nReadWritePaths=/a\n", "[Service]\nReadWritePaths=\n"]);
        assert!(emptied.words("ReadWritePaths").is_empty());
    }

    #[test]
    fn a_directory_of_secrets_hands_over_each_and_an_older_systemd_those_that_are_named() {
        let newer = unit(&[SHIPPED]);
        assert!(newer.hands_over("secret_other") && !newer.hands_over("secret_"));
        assert!(!newer.hands_over("secrets_other"));
        let older = unit(&[SHIPPED, OLDER]);
        assert!(older.hands_over("secret_database-url") && !older.hands_over("secret_other"));
        let more = "[Service]\nLoadCredential=secret_other:/etc/iot-ingestor/secrets/other\n";
        assert!(unit(&[SHIPPED, OLDER, more]).hands_over("secret_other"));
        assert!(unit(&["[Service]\nSetCredential=x:\n"]).hands_over("x"));
    }

    #[test]
    fn the_first_place_has_the_unit_and_drop_ins_of_all_are_read_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["etc", "usr"].map(|name| dir.path().join(name));
        assert!(Unit::read(&places).is_none());
        let drop_in = |place: usize, name: &str, user: &str| {
            let drop_ins = places[place].join("iot-ingestor.service.d");
            fs::create_dir_all(&drop_ins).unwrap();
            fs::write(drop_ins.join(name), format!("[Service]\nUser={user}\n")).unwrap();
        };
        let user = || Unit::read(&places).unwrap().last("User").map(str::to_owned);
        drop_in(0, "note.txt", "nobody");
        fs::create_dir_all(&places[1]).unwrap();
        fs::write(places[1].join(NAME), "[Service]\nUser=of-usr\n").unwrap();
        assert_eq!(user().as_deref(), Some("of-usr"));
        fs::write(places[0].join(NAME), "[Service]\nUser=of-etc\n").unwrap();
        assert_eq!(user().as_deref(), Some("of-etc"));
        drop_in(0, "10.conf", "ten");
        drop_in(1, "20.conf", "twenty");
        assert_eq!(user().as_deref(), Some("twenty"));
        drop_in(0, "20.conf", "twenty-of-etc");
        assert_eq!(user().as_deref(), Some("twenty-of-etc"));
    }
}
