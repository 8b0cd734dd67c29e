//! What stands between the service and its files: the rights of its user, and the unit of systemd. Who runs
//! this is mostly root, and sees what the service does not.

use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::log::existing;
use super::machine::Named;
use crate::cli::installation::{self, CREDENTIALS, SECRETS_DIR, Unit, User, Wanted};

const FILES: &str = "files";
const UNIT: &str = "unit";

/// What a credential is called, without `secret_`.
fn secret_of(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(CREDENTIALS)
}

/// Looks whether the service can read `files`, as it knows them, and write its log to `log`.
pub(super) fn examine(
    unit: Option<&Unit>,
    user: Option<&User>,
    files: &[Named],
    log: &Path,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if unit.is_some() || user.is_some() {
        findings.extend(files.iter().filter_map(|file| of_file(unit, user, file)));
        if findings.is_empty() {
            findings.push(Finding::ok(FILES, "the service can read those that its settings name"));
        }
    }
    findings.extend(unit.map(|unit| of_log(unit, user, log)));
    findings
}

/// What keeps the service from `file`.
fn of_file(unit: Option<&Unit>, user: Option<&User>, file: &Named) -> Option<Finding> {
    let Named { setting, path } = file;
    let (shown, dir) = (path.display(), Path::new(installation::DIR).join(SECRETS_DIR));
    let dir = dir.display();
    if let Some(secret) = secret_of(path) {
        let has_it = unit.is_none_or(|unit| unit.hands_over(&format!("secret_{secret}")));
        return (!has_it).then(|| {
            Finding::fail(
                FILES,
                format!("the unit does not hand over secret_{secret} ({setting}), as a systemd below 251 is told each by its name"),
                in_the_unit(&format!("LoadCredential=secret_{secret}:{dir}/{secret}")),
            )
        });
    }
    let name = path.file_name().unwrap_or_default().display();
    let elsewhere = format!("put it into {dir} and name it {CREDENTIALS}{name}");
    if unit.is_some_and(|unit| unit.hides(path)) {
        let what = format!("the unit hides {shown} ({setting}) from the service");
        return Some(Finding::fail(FILES, what, elsewhere));
    }
    let user = user?;
    let obstacle = user.obstacle(path, Wanted::Read)?;
    let what = format!("the service's user may not read {shown} ({setting})");
    if obstacle.is_dir() {
        let closed = obstacle.display();
        let what = format!("{what}, since {closed} is closed to it");
        // That of secrets is as it should be.
        let mend = if obstacle.ends_with(SECRETS_DIR) {
            elsewhere
        } else {
            format!("chmod o+x {closed}, or {elsewhere}")
        };
        return Some(Finding::fail(FILES, what, mend));
    }
    let mend = format!("chgrp {} {shown} && chmod g+r {shown}", user.group);
    Some(Finding::fail(FILES, what, mend))
}

fn of_log(unit: &Unit, user: Option<&User>, log: &Path) -> Finding {
    let shown = log.display();
    if !unit.may_write(log) {
        let change = in_the_unit(&format!("ReadWritePaths={shown}"));
        return Finding::fail(
            UNIT,
            format!("the service may not write to {shown} (WAL_DIR), or does not find it again"),
            format!("mount that disk at the WAL_DIR of the unit instead, or {change}"),
        );
    }
    let place = existing(log);
    let is_made = place != log && !unit.makes(log);
    let obstacle: Option<PathBuf> = is_made.then(|| user?.obstacle(&place, Wanted::Make)).flatten();
    if let Some((obstacle, user)) = obstacle.zip(user) {
        return Finding::fail(
            UNIT,
            format!("the service's user may not make {shown}, for {}", obstacle.display()),
            format!("mkdir --parents {shown} && chown {}:{} {shown}", user.id, user.group),
        );
    }
    Finding::ok(UNIT, format!("it lets the service write to {shown}"))
}

fn in_the_unit(line: &str) -> String {
    format!("systemctl edit iot-ingestor, and below [Service]: {line}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn unit(more: &str) -> Unit {
        let shipped = include_str!("../../../deploy/systemd/iot-ingestor.service");
        Unit::of(&[shipped, more])
    }

    fn older() -> Unit {
        unit(include_str!("../../../deploy/systemd/older-systemd.conf"))
    }

    fn named(setting: &str, path: impl Into<PathBuf>) -> Named {
        Named { setting: setting.to_owned(), path: path.into() }
    }

    /// Neither the owner of `path` nor of its group.
    fn stranger(path: &Path) -> User {
        let metadata = fs::metadata(path).unwrap();
        User { id: metadata.uid() + 1, group: metadata.gid() + 1, others: vec![] }
    }

    fn line(finding: Option<Finding>) -> String {
        finding.map(|finding| finding.line()).unwrap_or_default()
    }

    #[test]
    fn a_file_that_the_services_user_may_not_read_is_a_failure_with_what_lets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        fs::write(&path, "").unwrap();
        let user = stranger(&path);
        let found = || line(of_file(None, Some(&user), &named("MQTT_CA_FILE", &path)));
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(dir.path(), 0o755);
        set(&path, 0o640);
        let refused = found();
        assert!(refused.starts_with("FAIL files: the service's user may not read "), "{refused}");
        assert!(refused.contains("(MQTT_CA_FILE)"), "{refused}");
        assert!(refused.contains(&format!(" · chgrp {} ", user.group)), "{refused}");
        set(&path, 0o644);
        assert_eq!(found(), "");
        set(dir.path(), 0o700);
        let closed = found();
        assert!(closed.contains(&format!("since {} is closed", dir.path().display())), "{closed}");
        assert!(closed.contains(" · chmod o+x /"), "{closed}");
        assert!(closed.contains(&format!("{CREDENTIALS}ca.pem")), "{closed}");
    }

    #[test]
    fn a_file_in_a_home_is_none_that_the_service_sees() {
        let found = line(of_file(Some(&unit("")), None, &named("MQTT_CA_FILE", "/root/ca.pem")));
        assert!(
            found.starts_with("FAIL files: the unit hides /root/ca.pem (MQTT_CA_FILE)"),
            "{found}"
        );
        let found = of_file(Some(&unit("")), None, &named("MQTT_CA_FILE", "/etc/ssl/ca.pem"));
        assert_eq!(found, None);
    }

    #[test]
    fn a_secret_that_an_older_systemd_is_not_told_of_is_a_failure_and_its_owner_does_not_matter() {
        let secret = |name: &str| named("ADMIN_TOKEN_FILE", format!("{CREDENTIALS}{name}"));
        let user = User { id: 998, group: 997, others: vec![] };
        let found = |unit: &Unit, name: &str| line(of_file(Some(unit), Some(&user), &secret(name)));
        assert_eq!(found(&unit(""), "other"), "");
        assert_eq!(found(&older(), "admin-token"), "");
        let refused = found(&older(), "other");
        assert!(
            refused.starts_with("FAIL files: the unit does not hand over secret_other"),
            "{refused}"
        );
        let mend = "LoadCredential=secret_other:/etc/iot-ingestor/secrets/other";
        assert!(refused.ends_with(mend), "{refused}");
    }

    #[test]
    fn a_log_where_the_unit_lets_nothing_be_written_is_a_failure() {
        let found = |unit: &Unit, log: &str| of_log(unit, None, Path::new(log)).line();
        let outside = found(&unit(""), "/srv/wal");
        assert!(
            outside.starts_with("FAIL unit: the service may not write to /srv/wal"),
            "{outside}"
        );
        assert!(outside.ends_with("below [Service]: ReadWritePaths=/srv/wal"), "{outside}");
        assert!(found(&unit(""), "/var/lib/iot-ingestor/wal").starts_with("ok unit: "));
        let more = unit("[Service]\nReadWritePaths=/srv\n");
        assert!(found(&more, "/srv/wal").starts_with("ok unit: "));
    }

    #[test]
    fn a_log_that_the_services_user_cannot_make_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let unit = Unit::of(&["[Service]\nUser=box\n"]);
        let (log, user) = (dir.path().join("wal"), stranger(dir.path()));
        let refused = of_log(&unit, Some(&user), &log).line();
        assert!(refused.starts_with("FAIL unit: the service's user may not make "), "{refused}");
        assert!(refused.contains(&format!("chown {}:{} ", user.id, user.group)), "{refused}");
        fs::create_dir(&log).unwrap();
        assert!(
            of_log(&unit, Some(&user), &log).line().starts_with("ok unit: "),
            "that is the log's"
        );
    }
}
