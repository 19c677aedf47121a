//! Text that must not be shown: broker URLs with passwords, store keys.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::location::AZURE_SCHEMES;

/// A text whose `Debug` and `Display` print `…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the library that needs it; never for a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The text with `…` in place of each user and password in a URL, and of its query or fragment, which
/// may hold a token or a signature: for messages that quote what a user gave. A model on the hub,
/// `hf:OWNER/NAME`, is a URL too.
///
/// ```
/// use camshaft_common::secret::without_secrets;
///
/// assert_eq!(without_secrets("no s3://me:hunter2@bucket/x here"), "no s3://…@bucket/x here");
/// assert_eq!(without_secrets("no https://host/x?token=hunter2 here"), "no https://host/x?… here");
/// assert_eq!(without_secrets("az://container@account/x"), "az://container@account/x");
/// ```
#[must_use]
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(end) = ["://", "hf:"].iter().filter_map(|of| Some(rest.find(of)? + 3)).min() {
        let (before, after) = rest.split_at(end);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (mut address, following) = after.split_at(end);
        shown.push_str(before);
        // A token may stand there without a password. hf:OWNER/NAME@REVISION names no user, either.
        let scheme = before.trim_end_matches("://");
        let has_users =
            !before.ends_with("hf:") && !AZURE_SCHEMES.iter().any(|azure| scheme.ends_with(azure));
        if let Some((user, host)) = address.rsplit_once('@')
            && (user.contains(':') || (has_users && !user.contains('/')))
        {
            shown.push_str("…@");
            address = host;
        }
        match address.find(['?', '#']).map(|mark| address.split_at(mark + 1)) {
            Some((place, query)) if query.contains('=') => {
                shown.push_str(place);
                shown.push('…');
                // The end of a quotation or of a clause, and what stands after it.
                let end = query.trim_end_matches([':', ',', ';']).len();
                shown.push_str(&query[query.find(['\'', '"']).unwrap_or(end)..]);
            }
            _ => shown.push_str(address),
        }
        rest = following;
    }
    shown.push_str(rest);
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_queries_of_quoted_urls_are_left_out() {
        for (text, shown) in [
            ("'http://u:p/@ss@host:1/x' for", "'http://…@host:1/x' for"),
            ("a://u:p@b c://d e://:f@g", "a://…@b c://d e://…@g"),
            ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
            ("'https://host/x?a=b&c=d' for", "'https://host/x?…' for"),
            ("\"u://a:b@c/x?d=e\": no", "\"u://…@c/x?…\": no"),
            ("read https://host/x?a=b: gone", "read https://host/x?…: gone"),
            ("https://hf_token@host/x", "https://…@host/x"),
            ("'s3://b/x#token=a?b=c' is", "'s3://b/x#…' is"),
            ("'hf:a/b?token=c' for a://d?e=f", "'hf:a/b?…' for a://d?…"),
            ("hf:a/b@main is hf:b@main", "hf:a/b@main is hf:b@main"),
            ("az://container@account/x", "az://container@account/x"),
            ("abfss://container@account/x", "abfss://container@account/x"),
            ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
            ("://", "://"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn a_secret_shows_nothing() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "… … Some(…)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
