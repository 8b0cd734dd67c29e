//! What was found of one thing.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Grade {
    /// As it should be.
    Ok,
    /// Works, and is unwise.
    Warning,
    /// Would lose data, or keeps the service from working.
    Fail,
}

/// A thing, what it is like, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    grade: Grade,
    name: &'static str,
    what: String,
    /// For the operator; nothing where there is nothing to mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    pub(in crate::cli) fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, name, what: what.into(), mend: None }
    }

    pub(in crate::cli) fn warning(
        name: &'static str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { grade: Grade::Warning, name, what: what.into(), mend: Some(mend.into()) }
    }

    pub(in crate::cli) fn fail(
        name: &'static str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { grade: Grade::Fail, name, what: what.into(), mend: Some(mend.into()) }
    }

    pub(in crate::cli) fn is_failure(&self) -> bool {
        self.grade == Grade::Fail
    }

    /// One line.
    pub(in crate::cli) fn line(&self) -> String {
        let Self { grade, name, what, mend } = self;
        let grade = match grade {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Fail => "FAIL",
        };
        let mend = mend.as_deref().map_or(String::new(), |mend| format!(" · {mend}"));
        let line = format!("{grade} {name}: {what}{mend}");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_was_said() {
        let finding = Finding::fail("broker", "gone\nfor good", "start it");
        assert_eq!(finding.line(), "FAIL broker: gone for good · start it");
        assert_eq!(Finding::ok("disk", "fast").line(), "ok disk: fast");
    }
}
