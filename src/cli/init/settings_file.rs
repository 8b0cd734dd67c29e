//! `ingestor.env` with some of its lines set, and all others as they were.

/// `text` with `name` set to `value`: in its line, commented out or not, or else at the end.
///
/// # Errors
/// If systemd could not read it back.
pub(super) fn set(text: &str, name: &str, value: &str) -> Result<String, String> {
    let line = format!(
        "{name}={}",
        quoted(value).ok_or_else(|| {
            format!("{name}: a file for systemd cannot hold a line break or a ' in `{value}`")
        })?
    );
    let is_of_name = |candidate: &str| {
        candidate
            .strip_prefix('#')
            .unwrap_or(candidate)
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    };
    let lines: Vec<&str> = text.lines().collect();
    let active = lines.iter().position(|line| !line.starts_with('#') && is_of_name(line));
    let at = active.or_else(|| lines.iter().position(|line| is_of_name(line)));
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    match at {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
    Ok(lines.join("\n") + "\n")
}

/// As systemd.exec(5) reads it: in single quotes nothing has a meaning.
fn quoted(value: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+,#$".contains(c);
    if value.chars().all(is_plain) {
        return Some(value.to_owned());
    }
    (!value.contains(['\'', '\n', '\r'])).then(|| format!("'{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_put_in_its_own_line_and_nothing_else_changes() {
        let text = "# MQTT_PORT is explained here\n#MQTT_PORT=1883\n#MQTT_PORTS=x\nA=1\n";
        let set_once = set(text, "MQTT_PORT", "1884").unwrap();
        assert_eq!(set_once, "# MQTT_PORT is explained here\nMQTT_PORT=1884\n#MQTT_PORTS=x\nA=1\n");
        let twice = set(&set_once, "MQTT_PORT", "1885").unwrap();
        assert_eq!(twice, set_once.replace("1884", "1885"));
        assert_eq!(set("A=1", "B", "2").unwrap(), "A=1\nB=2\n");
        assert_eq!(set("#A=0\nA=1\n", "A", "2").unwrap(), "#A=0\nA=2\n");
    }

    #[test]
    fn what_systemd_would_read_as_something_else_is_quoted_or_refused() {
        assert_eq!(set("", "A", "b c").unwrap(), "A='b c'\n");
        assert_eq!(set("", "A", "b\\\"c").unwrap(), "A='b\\\"c'\n");
        assert!(set("", "A", "b'c").is_err());
        assert!(set("", "A", "b\nC=1").is_err());
    }
}
