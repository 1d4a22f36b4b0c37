//! The realm that a platform names.

/// What deployment platforms tell a process about the name it is reached by, in the order in which
/// they are asked; the order of the deployed SDKs, so that a service keeps its realm when it
/// changes its language. Not `HOST` or `HOSTNAME`, which differ between replicas: a challenge of
/// one would be refused by the next.
pub(crate) const VARIABLES: [&str; 7] = [
    "MPP_REALM",
    "FLY_APP_NAME",
    "HEROKU_APP_NAME",
    "RAILWAY_PUBLIC_DOMAIN",
    "RENDER_EXTERNAL_HOSTNAME",
    "VERCEL_URL",
    "WEBSITE_HOSTNAME",
];

/// The first variable that says something, and what it says.
pub(crate) fn of_platform(
    variable: impl Fn(&'static str) -> Option<String>,
) -> Option<(&'static str, String)> {
    VARIABLES.into_iter().find_map(|name| {
        let value = variable(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| (name, value.to_owned()))
    })
}

/// What to say where nothing names a realm.
pub(crate) fn missing() -> String {
    format!(
        "is missing, and so are the variables of the platforms that name one; give the host that \
         clients ask, such as \"api.example.com\", or set {}",
        VARIABLES.first().copied().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: replicas of one service have one realm, whatever their own hosts are called.
    #[test]
    fn the_first_variable_that_says_something_counts() {
        let of = |set: &'static [(&str, &str)]| {
            of_platform(move |name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HOST", "pod-7"), ("HOSTNAME", "pod-7")]), None);
        assert_eq!(
            of(&[("VERCEL_URL", "a.vercel.app"), ("FLY_APP_NAME", " shop ")]),
            Some(("FLY_APP_NAME", "shop".to_owned()))
        );
        assert_eq!(
            of(&[("MPP_REALM", ""), ("WEBSITE_HOSTNAME", "w.example")]),
            Some(("WEBSITE_HOSTNAME", "w.example".to_owned()))
        );
        assert_eq!(
            of(&[("FLY_APP_NAME", "shop"), ("MPP_REALM", "mine")]),
            Some(("MPP_REALM", "mine".to_owned()))
        );
    }
}
