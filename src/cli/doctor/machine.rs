//! Files with secrets, and the clock: what this machine by itself may have wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::finding::Finding;
use crate::base::settings::{Setting, Sources};
use crate::base::time::Timestamp;
use crate::telemetry::validate::built_at;

/// Private keys are no settings that hold a secret, but name a file that does.
const KEYS: [&str; 2] = ["MQTT_CLIENT_KEY_FILE", "HTTP_TLS_KEY_FILE"];

/// A file that a setting names.
pub(super) struct Named {
    pub(super) setting: String,
    pub(super) path: PathBuf,
}

/// The files that `from` names.
pub(super) fn files(settings: &[Setting], from: &mut Sources) -> Vec<Named> {
    let names = settings.iter().filter_map(|setting| match setting {
        Setting { name, is_secret: true, .. } => Some(format!("{name}_FILE")),
        Setting { name, .. } => name.ends_with("_FILE").then(|| (*name).to_owned()),
    });
    let file = |setting: String| {
        let path = from.optional(&setting, "a file")?;
        Some(Named { setting, path })
    };
    names.filter_map(file).collect()
}

/// Looks at those of `files` that hold a secret.
pub(super) fn secrets(settings: &[Setting], mut files: Vec<Named>) -> Vec<Finding> {
    files.retain(|Named { setting, .. }| {
        let name = setting.strip_suffix("_FILE").unwrap_or(setting);
        let is_secret = settings.iter().any(|known| known.is_secret && known.name == name);
        is_secret || KEYS.contains(&setting.as_str())
    });
    let open: Vec<_> = files
        .iter()
        .filter(|Named { path, .. }| {
            fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
        })
        .map(|Named { setting, path }| {
            let file = path.display();
            Finding::warning(
                "secrets",
                format!("{file} ({setting}) can be read by everybody on this machine"),
                format!("chmod o= {file}"),
            )
        })
        .collect();
    if open.is_empty() && !files.is_empty() {
        return vec![Finding::ok("secrets", "no file with one is open to everybody")];
    }
    open
}

/// Looks at the time of day.
pub(super) fn clock(now: Timestamp) -> Finding {
    if now < built_at() {
        return Finding::fail(
            "clock",
            format!("it is {now} here, and this program was built at {}", built_at()),
            "set the clock: timedatectl set-ntp true",
        );
    }
    Finding::ok("clock", now.to_string())
}
