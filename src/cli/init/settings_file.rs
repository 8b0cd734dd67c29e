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
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let active = lines.iter().position(|line| name_of(line) == Some(name));
    let is_shown = |line: &str| {
        let rest = line.strip_prefix('#').and_then(|line| line.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('='))
    };
    let shown = || lines.iter().position(|line| is_shown(line));
    let at = active.or_else(shown).unwrap_or_else(|| {
        lines.push(String::new());
        lines.len() - 1
    });
    // Of two lines systemd takes the last.
    let mut rest = lines.split_off(at + 1);
    rest.retain(|line| name_of(line) != Some(name));
    lines[at] = line;
    lines.append(&mut rest);
    Ok(lines.join("\n") + "\n")
}

/// `text` without a value of `name`, if it has one.
pub(super) fn unset(text: &str, name: &str) -> Option<String> {
    let mut has_any = false;
    let lines = text.lines().map(|line| {
        if name_of(line) != Some(name) {
            return line.to_owned();
        }
        has_any = true;
        format!("#{name}=")
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    has_any.then_some(text)
}

/// The setting that a line sets, if it does.
fn name_of(line: &str) -> Option<&str> {
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    line.split_once('=').map(|(name, _)| name.trim()).filter(is_name)
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
        assert_eq!(set("A=1\nB=1\n A = 3\n", "A", "2").unwrap(), "A=2\nB=1\n");
    }

    #[test]
    fn a_setting_that_is_taken_out_leaves_its_name_and_none_of_its_values() {
        let text = "B=1\n A = secret\n#A=0\nA=2\nAA=3";
        assert_eq!(unset(text, "A").unwrap(), "B=1\n#A=\n#A=0\n#A=\nAA=3\n");
        assert_eq!(unset("#A=0\nAA=3", "A"), None);
    }

    #[test]
    fn what_systemd_would_read_as_something_else_is_quoted_or_refused() {
        assert_eq!(set("", "A", "b c").unwrap(), "A='b c'\n");
        assert_eq!(set("", "A", "b\\\"c").unwrap(), "A='b\\\"c'\n");
        assert!(set("", "A", "b'c").is_err());
        assert!(set("", "A", "b\nC=1").is_err());
    }
}
