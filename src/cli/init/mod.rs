//! `ingestor init`: an installation's settings and secrets, asked for, tested and written.
//!
//! What a package or `scripts/install-service.sh` has put there, and nobody has touched, is filled in; what
//! somebody has written is changed only with `--force`. Nothing is written before all of it is known to
//! work, so an attempt that fails leaves what was there.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::doctor::{Examined, broker, database};
use super::installation::{self, CREDENTIALS, SECRETS_DIR, SETTINGS_FILE, assignments};
use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};

mod answers;
mod arguments;
mod files;
mod settings_file;
mod terminal;

use answers::Answers;
pub use arguments::Arguments;
use files::Planned;
use terminal::Terminal;

/// The settings as they are shipped.
const TEMPLATE: &str = include_str!("../../../deploy/systemd/ingestor.env");
const MAPPINGS_TEMPLATE: &str = include_str!("../../../Rocket.toml");
/// What is shipped in the place of a connection string.
const PLACEHOLDER: &str = "CHANGE-ME";

const SETTINGS_MODE: u32 = 0o600;
const SECRET_MODE: u32 = 0o600;
/// It may hold a setting that is a secret, and the service reads it.
const MAPPINGS_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o755;
const SECRETS_DIR_MODE: u32 = 0o700;

/// Why nothing was written.
enum Problem {
    /// In what was said.
    Arguments(Vec<String>),
    /// In all else.
    Other(Vec<String>),
}

impl From<String> for Problem {
    fn from(line: String) -> Self {
        Self::Other(vec![line])
    }
}

/// Asks, tests, writes. `load` reads a whole configuration.
pub fn run(
    arguments: &Arguments,
    load: impl FnOnce(Sources) -> Result<Examined, Mistakes>,
) -> ExitCode {
    let (code, lines) = match execute(arguments, load) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Problem::Arguments(lines)) => (ExitCode::from(64), lines),
        Err(Problem::Other(lines)) => (ExitCode::FAILURE, lines),
    };
    for line in lines {
        complain(&format!("ingestor: {line}"));
    }
    code
}

fn execute(
    arguments: &Arguments,
    load: impl FnOnce(Sources) -> Result<Examined, Mistakes>,
) -> Result<(), Problem> {
    let dir = std::path::absolute(&arguments.dir).map_err(|error| error.to_string())?;
    let (terminal, path) = (Terminal::of(arguments), dir.join(SETTINGS_FILE));
    let there = files::existing(&path)?;
    let is_somebodys = !arguments.force && there.as_deref().is_some_and(is_changed);
    let refusal = || {
        let path = path.display();
        Problem::from(format!("{path} was changed by somebody: change it by hand, or with --force"))
    };
    // Before anybody answers in vain.
    if is_somebodys && terminal.may_ask() {
        return Err(refusal());
    }
    let answers = answers::gather(arguments, &terminal).map_err(Problem::Arguments)?;
    let before = there.as_deref().unwrap_or(TEMPLATE);
    let (before, gone) = without(before, &outdated(before, &answers));
    let settings = changed(&before, &dir, &answers)?;
    if is_somebodys && there.as_ref() != Some(&settings) {
        return Err(refusal());
    }
    let secrets = secrets(&dir, &answers, arguments.force)?;
    if !gone.is_empty() {
        say(&format!("of the settings before, these go: {}", gone.join(", ")));
    }
    let examined = load(would_be(&dir, &settings, &secrets))
        .map_err(|Mistakes(mistakes)| Problem::Arguments(mistakes))?;
    let is_good = arguments.no_test || works(&examined);
    if !is_good && !terminal.agrees("Write it all the same?") {
        let line = "nothing was written; --no-test writes without asking broker and database";
        return Err(line.to_owned().into());
    }
    write(&dir, settings, secrets)?;
    say(&next_steps(&dir));
    Ok(())
}

/// Whether anything is set otherwise than as it is shipped, whatever is said of it beside.
fn is_changed(settings: &str) -> bool {
    !assignments(settings).eq(assignments(TEMPLATE))
}

/// What would go on to hold for another login or another broker, or beside the file that is written here.
fn outdated(before: &str, answers: &Answers) -> Vec<&'static str> {
    let Answers { broker, login, .. } = answers;
    let was = |name, value: &str| {
        assignments(before).any(|(candidate, before)| candidate == name && before == value)
    };
    let is_same = was("MQTT_BROKER", &broker.host) && was("MQTT_PORT", &broker.port.to_string());
    let mut names = vec!["DATABASE_URL", "ADMIN_TOKEN", "MQTT_PASSWORD"];
    if login.is_none() {
        names.extend(["MQTT_USERNAME", "MQTT_PASSWORD_FILE"]);
    }
    if !broker.has_tls {
        names.push("MQTT_TLS");
    }
    if !(broker.has_tls && is_same) {
        names.extend(["MQTT_CA_FILE", "MQTT_CLIENT_CERT_FILE", "MQTT_CLIENT_KEY_FILE"]);
    }
    names
}

/// `settings` without `names`, and which of these it had.
fn without(settings: &str, names: &[&'static str]) -> (String, Vec<&'static str>) {
    let mut gone = Vec::new();
    let settings =
        names.iter().fold(settings.to_owned(), |text, name| {
            match settings_file::unset(&text, name) {
                Some(text) => {
                    gone.push(*name);
                    text
                }
                None => text,
            }
        });
    (settings, gone)
}

fn changed(settings: &str, dir: &Path, answers: &Answers) -> Result<String, Problem> {
    // Below systemd the service reads copies.
    let secret = |name: &str| {
        if dir == Path::new(installation::DIR) {
            return format!("{CREDENTIALS}{name}");
        }
        dir.join(SECRETS_DIR).join(name).display().to_string()
    };
    let Answers { broker, login, .. } = answers;
    let mut wanted = vec![
        ("MQTT_BROKER", broker.host.clone()),
        ("MQTT_PORT", broker.port.to_string()),
        ("DATABASE_URL_FILE", secret("database-url")),
        ("ADMIN_TOKEN_FILE", secret("admin-token")),
    ];
    if broker.has_tls {
        wanted.push(("MQTT_TLS", "true".to_owned()));
    }
    if let Some((user, _)) = login {
        wanted.push(("MQTT_USERNAME", user.clone()));
        wanted.push(("MQTT_PASSWORD_FILE", secret("mqtt-password")));
    }
    wanted.iter().try_fold(settings.to_owned(), |text, (name, value)| {
        settings_file::set(&text, name, value).map_err(|line| Problem::Arguments(vec![line]))
    })
}

/// A secret, by the name of its file and the setting that it is of.
struct NamedSecret {
    name: &'static str,
    setting: &'static str,
    value: String,
}

/// Those that are to be there.
fn secrets(dir: &Path, answers: &Answers, may_change: bool) -> Result<Vec<NamedSecret>, Problem> {
    let mut all =
        vec![("database-url", "DATABASE_URL", Some(answers.database_url.expose().to_owned()))];
    if let Some((_, password)) = &answers.login {
        all.push(("mqtt-password", "MQTT_PASSWORD", Some(password.expose().to_owned())));
    }
    let token = answers.admin_token.as_ref().map(|token| token.expose().to_owned());
    all.push(("admin-token", "ADMIN_TOKEN", token));
    let mut secrets = Vec::new();
    for (name, setting, wanted) in all {
        let path = dir.join(SECRETS_DIR).join(name);
        let there = files::existing(&path)?.map(|text| text.trim_end().to_owned());
        let there = there.filter(|text| !text.is_empty() && !text.contains(PLACEHOLDER));
        let value = match (wanted, there) {
            (Some(wanted), Some(there)) if wanted != there && !may_change => {
                let line =
                    format!("{} is there, and another one: --force changes it", path.display());
                return Err(line.into());
            }
            (Some(wanted), _) => wanted,
            (None, Some(there)) => there,
            (None, None) => random_token()?,
        };
        secrets.push(NamedSecret { name, setting, value });
    }
    Ok(secrets)
}

fn random_token() -> Result<String, String> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "this system has no random numbers".to_owned())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What the service would read.
fn would_be(dir: &Path, settings: &str, secrets: &[NamedSecret]) -> Sources {
    let mut environment = installation::outside(dir, installation::environment_of(dir, settings));
    for NamedSecret { setting, value, .. } in secrets {
        environment.remove(&format!("{setting}_FILE"));
        environment.insert((*setting).to_owned(), value.clone());
    }
    Sources::of(environment)
}

/// Asks the broker and the database, and says what they answer.
fn works(examined: &Examined) -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    let findings = runtime.block_on(async {
        let mut findings = broker::examine(&examined.broker).await;
        findings.extend(database::examine(&examined.database, &examined.tables).await);
        findings
    });
    for finding in &findings {
        say(&finding.line());
    }
    !findings.iter().any(super::doctor::finding::Finding::is_failure)
}

/// Secrets first: settings that name them mean that they are there.
fn write(dir: &Path, settings: String, secrets: Vec<NamedSecret>) -> Result<(), String> {
    files::make_dir(dir, DIR_MODE)?;
    files::make_dir(&dir.join(SECRETS_DIR), SECRETS_DIR_MODE)?;
    let secrets = secrets.into_iter().map(|NamedSecret { name, value, .. }| Planned {
        path: dir.join(SECRETS_DIR).join(name),
        content: value + "\n",
        mode: SECRET_MODE,
        group: None,
    });
    let mut planned: Vec<Planned> = secrets.collect();
    let mappings = dir.join("Rocket.toml");
    if !mappings.exists() {
        let content = MAPPINGS_TEMPLATE.to_owned();
        let group = installation::service_user(dir).map(|user| user.group);
        planned.push(Planned { path: mappings, content, mode: MAPPINGS_MODE, group });
    }
    let path = dir.join(SETTINGS_FILE);
    planned.push(Planned { path, content: settings, mode: SETTINGS_MODE, group: None });
    for file in &planned {
        files::write(file)?;
        say(&format!("{} written", file.path.display()));
    }
    Ok(())
}

fn next_steps(dir: &Path) -> String {
    let shown = dir.display();
    if dir == Path::new(installation::DIR) {
        return "\
Next:  sudo systemctl restart iot-ingestor      # starts it, too
Look:  sudo ingestor doctor
       journalctl -u iot-ingestor -f
       curl http://127.0.0.1:8080/health/ready
Admin: curl -H \"Authorization: Bearer $(sudo cat /etc/iot-ingestor/secrets/admin-token)\" http://127.0.0.1:8080/admin/wal"
            .to_owned();
    }
    format!(
        "Next:  (set -a; . {shown}/{SETTINGS_FILE}; ROCKET_CONFIG={shown}/Rocket.toml ingestor)\n\
         Look:  ingestor doctor --dir {shown}"
    )
}

/// Who does not read it has not asked for it.
fn say(text: &str) {
    writeln!(io::stdout(), "{text}").ok();
}
