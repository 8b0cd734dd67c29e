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

/// Looks at the files that `from` names.
pub(super) fn secrets(settings: &[Setting], mut from: Sources) -> Vec<Finding> {
    let names = settings.iter().filter(|setting| setting.is_secret);
    let names: Vec<_> = names.map(|setting| format!("{}_FILE", setting.name)).collect();
    let names = names.iter().map(String::as_str).chain(KEYS);
    let files = names.filter_map(|name| Some((name, from.optional::<PathBuf>(name, "a file")?)));
    let files: Vec<_> = files.collect();
    let open: Vec<_> = files
        .iter()
        .filter(|(_, file)| {
            fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
        })
        .map(|(name, file)| {
            let file = file.display();
            Finding::warning(
                "secrets",
                format!("{file} ({name}) can be read by everybody on this machine"),
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
