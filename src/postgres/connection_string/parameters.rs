//! Every parameter, checked by the names that the driver takes (sqlx 0.9, `options/parse.rs`) and
//! those that are ours.

use std::path::Path;

/// What a server must be to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetSession {
    /// Whatever answers.
    #[default]
    Any,
    /// One that takes writes, which a standby does not.
    ReadWrite,
}

/// The names of a parameter, that of PostgreSQL's own clients first. In the order in which they are
/// suggested.
const PARAMETERS: &[&[&str]] = &[
    &["sslmode", "ssl-mode"],
    &["sslrootcert", "ssl-root-cert", "ssl-ca"],
    &["sslcert", "ssl-cert"],
    &["sslkey", "ssl-key"],
    &["host"],
    &["hostaddr"],
    &["port"],
    &["dbname"],
    &["user"],
    &["password"],
    &["application_name"],
    &["options"],
    &[TARGET],
    &[CACHE],
];
pub(super) const TARGET: &str = "target_session_attrs";
/// sqlx's own: 0 promises nothing of a session that outlasts a transaction.
pub(super) const CACHE: &str = "statement-cache-capacity";
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// What `PQconnectdb` also takes; here it would do nothing.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("connect_timeout", "set DATABASE_CONNECT_TIMEOUT_SECS instead"),
    ("passfile", "set PGPASSFILE instead"),
    ("channel_binding", "take it out, and set sslmode=verify-full, which proves more"),
    ("sslnegotiation", "take it out"),
    ("sslcrl", "take it out"),
    ("sslpassword", "take it out, and store the key without a password"),
    ("gssencmode", "take it out: GSSAPI is not used"),
    ("krbsrvname", "take it out: GSSAPI is not used"),
    ("keepalives", "take it out: every call has a time limit of its own"),
    ("keepalives_idle", "take it out: every call has a time limit of its own"),
    ("keepalives_interval", "take it out: every call has a time limit of its own"),
    ("keepalives_count", "take it out: every call has a time limit of its own"),
    ("tcp_user_timeout", "take it out: every call has a time limit of its own"),
    ("load_balance_hosts", "take it out: hosts are tried in their order"),
    ("client_encoding", "take it out: it is always UTF8"),
    ("fallback_application_name", "set application_name instead"),
    ("service", "spell the connection out"),
];

/// Names are replaced by their first ones.
pub(super) fn read_parameters(query: &str, problems: &mut Vec<String>) -> Vec<(String, String)> {
    let mut known: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let is_option = name.starts_with("options[") && name.ends_with(']');
        let Some(canonical) = canonical(&name).or(is_option.then_some(&*name)) else {
            problems.push(unknown(&name));
            continue;
        };
        if known.iter().any(|(key, _)| key == canonical) && !is_option && name != "options" {
            problems.push(format!("the parameter `{canonical}` is given twice"));
        }
        if canonical == "sslmode" && !SSL_MODES.contains(&value.to_ascii_lowercase().as_str()) {
            let modes = SSL_MODES.join(", ");
            let nearest = nearest(&value, &SSL_MODES);
            problems.push(format!(
                "`sslmode` is one of {modes}, not `{value}`: did you mean `{nearest}`?"
            ));
        }
        if canonical == CACHE && value.parse::<u16>().is_err() {
            problems.push(format!("`{CACHE}` is a whole number"));
        }
        known.push((canonical.to_owned(), value.into_owned()));
    }
    known
}

pub(super) fn canonical(name: &str) -> Option<&'static str> {
    PARAMETERS.iter().find(|names| names.contains(&name)).map(|names| names[0])
}

fn unknown(name: &str) -> String {
    // No value is shown: it may be a part of a password.
    let lower = name.to_ascii_lowercase();
    if let Some((_, advice)) = UNSUPPORTED.iter().find(|(known, _)| *known == lower) {
        return format!("the parameter `{name}` has no effect here: {advice}");
    }
    let names: Vec<&str> = PARAMETERS.iter().map(|names| names[0]).collect();
    let nearest = match lower.as_str() {
        "tls" | "usessl" | "use_ssl" | "secure" | "encrypt" => "sslmode",
        "schema" | "search_path" | "currentschema" => "options[search_path]",
        _ => nearest(&lower, &names),
    };
    format!("the parameter `{name}` is unknown: did you mean `{nearest}`?")
}

/// What begins so, or else what takes the fewest changes.
fn nearest<'n>(name: &str, known: &[&'n str]) -> &'n str {
    let lower = name.to_ascii_lowercase();
    let begins = known.iter().find(|known| lower.len() >= 3 && known.starts_with(&lower));
    let closest = || known.iter().min_by_key(|known| strsim::damerau_levenshtein(&lower, known));
    begins.or_else(closest).copied().unwrap_or_default()
}

pub(super) fn read_target(value: Option<&str>, problems: &mut Vec<String>) -> TargetSession {
    match value {
        None | Some("any") => TargetSession::Any,
        Some("read-write" | "primary") => TargetSession::ReadWrite,
        Some(_) => {
            problems.push(format!(
                "`{TARGET}` is any or read-write: the ingestor writes, which a standby does not take"
            ));
            TargetSession::Any
        }
    }
}

pub(super) fn check_files<'p>(find: impl Fn(&str) -> Option<&'p str>, problems: &mut Vec<String>) {
    for name in ["sslrootcert", "sslcert", "sslkey"] {
        let Some(path) = find(name) else { continue };
        let is_inline = path.trim_start().starts_with("-----BEGIN");
        let is_system = name == "sslrootcert" && path == "system";
        if !is_inline
            && !is_system
            && let Err(error) = std::fs::File::open(Path::new(path))
        {
            problems.push(format!("`{name}`: cannot read {path}: {error}"));
        }
    }
    if find("sslcert").is_some() != find("sslkey").is_some() {
        problems.push("`sslcert` and `sslkey` go together: give both or none".to_owned());
    }
}
