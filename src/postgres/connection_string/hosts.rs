//! A string that names several hosts, taken apart into one string a host.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::parameters::{TARGET, canonical};

/// One of its hosts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HostString {
    /// The whole string for this host alone, password included, for the driver.
    pub(crate) url: String,
    /// A name, an address, or the directory of a socket; `None` for the driver's default.
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
}

impl HostString {
    /// Whether what is sent there never leaves this machine.
    pub(crate) fn is_this_machine(host: &str) -> bool {
        host.starts_with('/')
            || host.eq_ignore_ascii_case("localhost")
            || bare(host).parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// `scheme://user:password@hosts/path?query`, as it stands.
pub(super) struct Parts<'t> {
    scheme: &'t str,
    login: Option<&'t str>,
    hosts: &'t str,
    pub(super) path: &'t str,
    pub(super) query: &'t str,
}

impl<'t> Parts<'t> {
    pub(super) fn of(text: &'t str) -> Result<Self, &'static str> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("not a URL of the form postgres://user:password@host:5432/db")?;
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err("must start with postgres:// or postgresql://");
        }
        if rest.contains('#') {
            return Err("a # in it has to be written as %23");
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if path.contains('@') {
            // A user and a password that landed there would be shown.
            return Err("the host is missing before the name of the database, or a / in the \
                        password has to be written as %2F");
        }
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        Ok(Self { scheme, login, hosts, path, query })
    }

    pub(super) fn user_and_password(&self) -> (&'t str, Option<&'t str>) {
        let login = self.login.unwrap_or_default();
        login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)))
    }

    pub(super) fn redacted(&self, parameters: &[(String, String)]) -> String {
        let mut shown = format!("{}://", self.scheme);
        if self.login.is_some() {
            let (user, password) = self.user_and_password();
            shown.push_str(user);
            shown.push_str(if password.is_some() { ":***@" } else { "@" });
        }
        shown.push_str(self.hosts);
        shown.push_str(self.path);
        if parameters.iter().any(|(key, _)| key == "password") {
            shown.push_str("?***");
        } else if !self.query.is_empty() {
            shown.push('?');
            shown.push_str(self.query);
        }
        shown
    }

    /// The string for one host, without what the driver does not know.
    fn for_host(&self, host: Option<&str>, port: Option<u16>) -> String {
        let login = self.login.map(|login| format!("{login}@")).unwrap_or_default();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        // A socket's directory stands in a parameter: a path is no host of a URL.
        let (host, socket) = match host {
            Some(host) if host.starts_with('/') => ("localhost", Some(host)),
            Some(host) => (host, None),
            None if port.is_empty() && login.is_empty() => ("", None),
            None => return self.for_default_host(&login, &port),
        };
        let query = self.query_for_driver(socket);
        format!("{}://{login}{host}{port}{}{query}", self.scheme, self.path)
    }

    /// A URL with a login or a port and no host is none.
    fn for_default_host(&self, login: &str, port: &str) -> String {
        let host = PgConnectOptions::new_without_pgpass().get_host().to_owned();
        let (host, socket) =
            if host.starts_with('/') { ("localhost", Some(host)) } else { (host.as_str(), None) };
        let query = self.query_for_driver(socket.as_deref());
        format!("{}://{login}{host}{port}{}{query}", self.scheme, self.path)
    }

    fn query_for_driver(&self, socket: Option<&str>) -> String {
        let is_drivers = |pair: &&str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let ours = ["host", "hostaddr", "port", TARGET].contains(&name);
            let is_system = canonical(name) == Some("sslrootcert") && value == "system";
            !pair.is_empty() && !ours && !is_system
        };
        let mut query: Vec<String> =
            self.query.split('&').filter(is_drivers).map(str::to_owned).collect();
        if let Some(socket) = socket {
            let socket = url::form_urlencoded::byte_serialize(socket.as_bytes());
            query.push(format!("host={}", socket.collect::<String>()));
        }
        if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) }
    }
}

pub(super) fn read_hosts<'p>(
    parts: &Parts<'_>,
    find: impl Fn(&str) -> Option<&'p str>,
    problems: &mut Vec<String>,
) -> Vec<HostString> {
    let mut hosts = Vec::new();
    for entry in parts.hosts.split(',') {
        match host_and_port(entry) {
            Some(host) => hosts.push(host),
            None => problems.push("a host is written as name, name:port or [IPv6]:port".to_owned()),
        }
    }
    // As in PostgreSQL's own clients, an address takes the place of a name.
    if let Some(named) = find("hostaddr").or_else(|| find("host")) {
        let given: Vec<Option<u16>> = hosts.iter().map(|(_, port)| *port).collect();
        let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        hosts = named.split(',').map(|host| (name(host), None)).collect();
        for (index, (_, port)) in hosts.iter_mut().enumerate() {
            *port = given.get(index).or(given.first()).copied().flatten();
        }
    }
    if find("hostaddr").is_some_and(|named| named.split(',').any(|a| a.parse::<IpAddr>().is_err()))
    {
        problems.push("`hostaddr` is an IP address".to_owned());
    }
    if let Some(ports) = find("port") {
        let given: Vec<Option<u16>> = ports.split(',').map(|port| port.parse().ok()).collect();
        let fits = given.len() == 1 || given.len() == hosts.len();
        if !fits || given.contains(&None) {
            problems.push("`port` is one port, or one a host, from 1 to 65535".to_owned());
        } else {
            for (index, (_, port)) in hosts.iter_mut().enumerate() {
                *port = given.get(index).or(given.first()).copied().flatten();
            }
        }
    }
    let mut strings = Vec::new();
    for (host, port) in hosts {
        let in_url = host.as_deref().map(|host| match host.parse() {
            Ok(IpAddr::V6(_)) => format!("[{host}]"),
            _ => host.to_owned(),
        });
        let url = parts.for_host(in_url.as_deref(), port);
        if Url::parse(&url).is_err() || PgConnectOptions::from_str(&url).is_err() {
            if problems.is_empty() {
                problems.push("the driver cannot read this connection string".to_owned());
            }
            continue;
        }
        strings.push(HostString { url, host: host.map(|host| bare(&host).to_owned()), port });
    }
    strings
}

fn host_and_port(entry: &str) -> Option<(Option<String>, Option<u16>)> {
    let (host, port) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => entry.split_once(':').map_or((entry, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
    };
    let host = percent_decoded(host)?;
    Some((Some(host).filter(|host| !host.is_empty()), port))
}

/// A socket's directory is written with %2F in a URL.
fn percent_decoded(host: &str) -> Option<String> {
    if !host.contains('%') {
        return Some(host.to_owned());
    }
    let query = format!("h={}", host.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next()?.1.into_owned();
    Some(decoded)
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}
