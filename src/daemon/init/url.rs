//! A database's URL, as far as `init` must understand it: where the password stands, and what the database is called.

/// `scheme://user:password@host/database?…`. The password may hold any character as it is, `@` and `/` too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    whole: String,
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    /// Host, port, path and parameters.
    place: String,
}

impl Url {
    /// None if it has no scheme.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        // An @ among the parameters is no end of the user's part.
        let before_parameters = rest.find('?').map_or(rest, |end| &rest[..end]);
        let at = before_parameters
            .rfind('@')
            .or_else(|| rest.rfind('@').filter(|_| !before_parameters.contains('/')));
        let (user, password, place) = match at {
            None => (None, None, rest),
            Some(at) => {
                let (user, password) = match rest[..at].split_once(':') {
                    Some((user, password)) => (user, Some(password.to_owned())),
                    None => (&rest[..at], None),
                };
                (Some(user.to_owned()), password, &rest[at + 1..])
            }
        };
        let (whole, scheme, place) = (text.to_owned(), scheme.to_owned(), place.to_owned());
        (!scheme.is_empty()).then_some(Self { whole, scheme, user, password, place })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.whole
    }

    pub(super) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// A name made of the database's, legal for a source or a sink.
    pub(super) fn name(&self) -> Option<String> {
        let database = self.place.split(['?', '#']).next()?.split_once('/')?.1;
        let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = database.chars().map(legal).take(64).collect();
        let name = name.trim_matches(['_', '-']);
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The URL with its password replaced by a variable, and that variable; as it is if it holds none. With a secret among the
    /// parameters, the variable stands for all of it.
    pub(super) fn without_secret(&self, name: &str) -> (String, Option<String>) {
        let parameters = self.place.split_once('?').map_or("", |(_, parameters)| parameters);
        if parameters.to_ascii_lowercase().contains("password=") {
            let variable = format!("{name}_URL");
            return (format!("${{env:{variable}}}"), Some(variable));
        }
        match (&self.user, &self.password) {
            (Some(user), Some(password)) if !password.is_empty() => {
                let variable = format!("{name}_PASSWORD");
                (format!("{}://{user}:${{env:{variable}}}@{}", self.scheme, self.place), Some(variable))
            }
            _ => (self.whole.clone(), None),
        }
    }
}

/// The start of an environment variable's name.
pub(super) fn variable(name: &str, more: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(legal).collect();
    // A name that starts with a digit is none for a shell.
    let start = if name.starts_with(|c: char| c.is_ascii_digit()) { "DB_" } else { "" };
    format!("{start}{name}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_replaced_wherever_it_stands() {
        for (url, expected) in [
            ("mysql://cdc:geheim@db:3306/shop", "mysql://cdc:${env:X_PASSWORD}@db:3306/shop"),
            ("mysql://cdc:a@b/c#d@db/shop", "mysql://cdc:${env:X_PASSWORD}@db/shop"),
            ("mysql://cdc:a:b@db/shop?x=@y", "mysql://cdc:${env:X_PASSWORD}@db/shop?x=@y"),
            ("mysql://cdc:wh?t@db/shop", "mysql://cdc:${env:X_PASSWORD}@db/shop"),
            ("postgres://app@pg/dash?password=geheim", "${env:X_URL}"),
            ("mysql://cdc@db/shop", "mysql://cdc@db/shop"),
            ("mysql://db/shop", "mysql://db/shop"),
        ] {
            let shown = Url::parse(url).unwrap().without_secret("X").0;
            assert_eq!(shown, expected, "{url}");
            assert!(!shown.contains("geheim"), "{shown}");
        }
    }

    #[test]
    fn the_database_gives_the_name() {
        for (url, expected) in [
            ("mysql://u:p@h:3306/shop", Some("shop")),
            ("postgres://u@h/dash_1?sslmode=require", Some("dash_1")),
            ("mysql://u:p/q@h/señal", Some("se_al")),
            ("mysql://u:p@h", None),
            ("mysql://u:p@h/", None),
        ] {
            assert_eq!(Url::parse(url).unwrap().name().as_deref(), expected, "{url}");
        }
        assert_eq!(variable("my-shop", "_SINK"), "MY_SHOP_SINK");
        assert_eq!(variable("1shop", ""), "DB_1SHOP");
        assert_eq!(Url::parse("localhost"), None);
    }
}
