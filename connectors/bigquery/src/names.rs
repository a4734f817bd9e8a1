//! Names of tables and columns.

use std::fmt;

/// A table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) project: String,
    pub(crate) dataset: String,
    pub(crate) table: String,
}

impl Object {
    /// Reads `table`, `dataset.table` or `project.dataset.table`, with or without backticks. A project may hold dots (`example.com:project`).
    pub(crate) fn parse(text: &str, project: &str, dataset: Option<&str>) -> Option<Self> {
        let text = text.trim().replace('`', "");
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c == ';') {
            return None;
        }
        let mut parts = text.rsplitn(3, '.');
        let table = parts.next()?.to_owned();
        let dataset = parts.next().or(dataset)?.to_owned();
        let project = parts.next().unwrap_or(project).to_owned();
        let whole = !table.is_empty() && !dataset.is_empty() && !project.is_empty();
        whole.then_some(Self { project, dataset, table })
    }

    /// As the Storage API names it.
    pub(crate) fn path(&self) -> String {
        format!("projects/{}/datasets/{}/tables/{}", self.project, self.dataset, self.table)
    }

    /// For SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("`{self}`")
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.project, self.dataset, self.table)
    }
}

/// A column for SQL: in backticks, where a backslash and a backtick are escaped.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_quoted() {
        let read = |text| Object::parse(text, "p", Some("d")).map(|object| object.quoted());
        assert_eq!(read("t").as_deref(), Some("`p.d.t`"));
        assert_eq!(read("other.t").as_deref(), Some("`p.other.t`"));
        assert_eq!(read("`q-1.d2.t`").as_deref(), Some("`q-1.d2.t`"));
        assert_eq!(read("example.com:q.d.t").as_deref(), Some("`example.com:q.d.t`"));
        assert_eq!(read("t; DROP TABLE x"), None);
        assert_eq!(Object::parse("t", "p", None), None);
        assert_eq!(quoted("a`b\\"), "`a\\`b\\\\`");
    }
}
