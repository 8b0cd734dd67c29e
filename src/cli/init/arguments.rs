//! What `ingestor init` is told.

use std::path::PathBuf;

use clap::Args;

use crate::cli::installation;

const BROKER_HELP: &str = "The broker: HOST, HOST:PORT, or mqtts://HOST[:PORT] for TLS";

/// What `ingestor init` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[arg(long, value_name = "BROKER", help = BROKER_HELP)]
    pub(super) broker: Option<String>,
    /// User name at the broker
    #[arg(long, value_name = "USER", requires = "broker")]
    pub(super) broker_user: Option<String>,
    /// File with the password at the broker
    #[arg(long, value_name = "FILE", requires = "broker_user")]
    pub(super) broker_password_file: Option<PathBuf>,
    /// Connection string of PostgreSQL; who is on this machine can read it meanwhile, so rather use
    /// --database-file
    #[arg(long, value_name = "URL", conflicts_with = "database_file")]
    pub(super) database: Option<String>,
    /// File with the connection string of PostgreSQL
    #[arg(long, value_name = "FILE")]
    pub(super) database_file: Option<PathBuf>,
    /// Bearer token of /admin, 16 characters or more [default: the one that is there, or a random one];
    /// who is on this machine can read it meanwhile, so rather use --admin-token-file
    #[arg(long, value_name = "TOKEN", conflicts_with = "admin_token_file")]
    pub(super) admin_token: Option<String>,
    /// File with the bearer token of /admin
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = installation::DIR)]
    pub(super) dir: PathBuf,
    /// Ask nothing
    #[arg(long)]
    pub(super) yes: bool,
    /// Change settings and secrets that somebody has written; a login and TLS of before that are not asked
    /// for again go
    #[arg(long)]
    pub(super) force: bool,
    /// Write without asking broker and database first
    #[arg(long)]
    pub(super) no_test: bool,
}

const AFTER_HELP: &str = "\
Asks on a terminal for what no flag says, tests the broker and the database, and writes DIR/ingestor.env
(mode 0600), DIR/secrets (0700, each file 0600): database-url, admin-token and mqtt-password, and, if there is
none, DIR/Rocket.toml (0640, for the service's group). Of ingestor.env only the lines of what was asked are
changed. If a test fails nothing is written, unless whoever is asked agrees.

  sudo ingestor init
  sudo ingestor init --broker broker.example --database-file /root/url --yes

Exit codes: 0 written, 1 not, in a line or more on standard error, 64 bad arguments.";
