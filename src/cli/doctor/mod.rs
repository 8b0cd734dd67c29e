//! `ingestor doctor`: whether all that the service needs is there and as it should be, in a line each,
//! with what mends it. Disturbs nothing: a service that runs keeps its session at the broker and its log.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::installation::{self, Unit, User};
use super::service::Place;
use crate::base::output::complain;
use crate::base::settings::{self, Mistakes, Setting, Sources};
use crate::base::time::Timestamp;
use crate::{mqtt, postgres, wal};

pub(super) mod broker;
pub(super) mod database;
pub(super) mod finding;
mod log;
mod machine;
mod service;
mod unit;

use finding::Finding;
use machine::Named;

/// What `ingestor doctor` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Test what is installed in DIR, by its ingestor.env, Rocket.toml and secrets [default:
    /// /etc/iot-ingestor, if that is there and the environment sets nothing]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Prints a line each: `ok`, `warning` or `FAIL`, what was looked at, what was found, and what mends it. Reads
the configuration as the service does, and needs the rights to read it: for an installation, run it as root.

A service that runs is not disturbed: the broker is asked under another client id, which is named, in a session
that it forgets afterwards, and the log is not opened. A broker that takes all clients of a login for the same
interrupts the service for a moment, and nothing more is asked of it then. Nothing is written to the database.

Exit codes: 0 nothing fails, 1 something would lose data or keeps the service from working, 64 bad arguments.";

/// What is looked at.
#[derive(Debug)]
pub struct Examined {
    /// The broker, with all filters.
    pub broker: mqtt::Settings,
    /// The database.
    pub database: postgres::Settings,
    /// The tables that mappings fill.
    pub tables: Vec<String>,
    /// The log.
    pub log: wal::Settings,
    /// What is allowed and unwise.
    pub warnings: Vec<String>,
}

#[derive(Serialize)]
struct Report<'f> {
    ok: bool,
    findings: &'f [Finding],
}

/// Looks, and says what was found. `load` reads the whole configuration, of which `settings` is the list.
pub fn run(
    arguments: &Arguments,
    settings: &[Setting],
    load: impl FnOnce(Sources) -> Result<Examined, Mistakes>,
) -> ExitCode {
    let findings = examine(arguments, settings, load);
    let ok = !findings.iter().any(Finding::is_failure);
    let text = if arguments.json {
        let report = serde_json::to_string(&Report { ok, findings: &findings });
        report.unwrap_or_default() + "\n"
    } else {
        findings.iter().map(|finding| finding.line() + "\n").collect()
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("ingestor: cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ if ok => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn examine(
    arguments: &Arguments,
    settings: &[Setting],
    load: impl FnOnce(Sources) -> Result<Examined, Mistakes>,
) -> Vec<Finding> {
    let installed = match installed(arguments, settings) {
        Ok(installed) => installed,
        Err(finding) => return vec![finding],
    };
    let Installed { environment, whence, user, unit, .. } = &installed;
    let sources = || Sources::of(environment.clone());
    let examined = match load(sources()) {
        Ok(examined) => examined,
        Err(Mistakes(mistakes)) => {
            let mend = format!("correct {whence}");
            return mistakes
                .into_iter()
                .map(|mistake| Finding::fail(CONFIGURATION, mistake, mend.clone()))
                .collect();
        }
    };
    let mut findings = vec![Finding::ok(CONFIGURATION, whence.as_str())];
    findings.extend(examined.warnings.iter().map(|warning| {
        let (what, mend) = warning
            .rsplit_once("; ")
            .or_else(|| warning.rsplit_once(": "))
            .unwrap_or((warning, ""));
        Finding::warning(CONFIGURATION, what, mend)
    }));
    findings.extend(service::examine(&examined.log.dir, Place::read(&mut sources())));
    findings.push(machine::clock(Timestamp::now()));
    findings.extend(machine::secrets(settings, machine::files(settings, &mut sources())));
    let files = files(&installed, settings, &examined);
    findings.extend(unit::examine(unit.as_ref(), user.as_ref(), &files, &examined.log.dir));
    findings.extend(log::examine(&examined.log, user.as_ref()));
    findings.extend(of_servers(&examined));
    findings
}

const CONFIGURATION: &str = "configuration";

/// What the service has.
struct Installed {
    environment: BTreeMap<String, String>,
    /// The same, with the names that its secrets have for the service itself.
    inside: BTreeMap<String, String>,
    /// Where that comes from.
    whence: String,
    /// Whom it runs as, if that is known.
    user: Option<User>,
    /// What starts it, if that is known.
    unit: Option<Unit>,
}

fn installed(arguments: &Arguments, settings: &[Setting]) -> Result<Installed, Finding> {
    let names = settings
        .iter()
        .flat_map(|setting| [setting.name.to_owned(), format!("{}_FILE", setting.name)]);
    let Some(dir) = arguments.dir.clone().or_else(|| installation::found(names)) else {
        let (environment, whence) = (settings::environment(), "the environment and Rocket.toml");
        let (inside, whence) = (environment.clone(), whence.to_owned());
        return Ok(Installed { environment, inside, whence, user: None, unit: None });
    };
    let whence = dir.join(installation::SETTINGS_FILE).display().to_string();
    match installation::environment(&dir) {
        Ok(inside) => {
            let environment = installation::outside(&dir, inside.clone());
            let (user, unit) = (installation::service_user(&dir), installation::unit(&dir));
            Ok(Installed { environment, inside, whence, user, unit })
        }
        Err(error) => Err(Finding::fail(
            CONFIGURATION,
            format!("{whence}: {error}"),
            "run this as root, or make it with `ingestor init`",
        )),
    }
}

/// The files that the service reads, by the names that they have for it.
fn files(installed: &Installed, settings: &[Setting], examined: &Examined) -> Vec<Named> {
    let Installed { inside, .. } = installed;
    let mut files = machine::files(settings, &mut Sources::of(inside.clone()));
    let mut add = |setting: &str, path: PathBuf| {
        files.push(Named { setting: setting.to_owned(), path });
    };
    if let Some(path) = inside.get("ROCKET_CONFIG") {
        add("ROCKET_CONFIG", path.into());
    }
    for (parameter, path) in examined.database.tls_files() {
        add(parameter, path);
    }
    files
}

fn of_servers(examined: &Examined) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Finding::fail("doctor", error.to_string(), "free processes or memory")];
        }
    };
    let (mut broker, database) = runtime.block_on(async {
        tokio::join!(
            broker::examine(&examined.broker),
            database::examine(&examined.database, &examined.tables)
        )
    });
    broker.extend(database);
    broker
}
