//! Who may ask: a browser on this machine that was given the token.
//!
//! Any page that a browser shows can send requests to this machine. Those are told apart by three
//! things: the cookie with the token, which other sites' requests don't carry (`SameSite=Strict`); the
//! `Host` header, which has another site's name if that name was made to lead here (DNS rebinding); and
//! `Origin` and `Sec-Fetch-Site`, which say what page asks.

use hyper::HeaderMap;
use hyper::header::{COOKIE, HOST, HeaderName, ORIGIN};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const TOKEN_DIGITS: usize = 32;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is for another host, or from another site.
    OtherSite,
    /// It lacks the token.
    NoToken,
}

/// The token of one run of the program, and what requests must show.
#[derive(Debug)]
pub(super) struct Access {
    port: u16,
    token: String,
}

impl Access {
    /// A new token for a port.
    pub(super) fn new(port: u16) -> Self {
        Self { port, token: format!("{:0TOKEN_DIGITS$x}", rand::random::<u128>()) }
    }

    /// The address to open.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// The value of `Set-Cookie` that brings the token with each further request. Browsers share cookies
    /// between the ports of a machine, so the name has the port.
    pub(super) fn cookie(&self) -> String {
        format!("{}={}; HttpOnly; SameSite=Strict; Path=/", self.cookie_name(), self.token)
    }

    fn cookie_name(&self) -> String {
        format!("camshaft-{}", self.port)
    }

    /// Whether the query of the first address has the token.
    pub(super) fn is_in_query(&self, query: Option<&str>) -> bool {
        let parts = query.unwrap_or_default().split('&');
        parts.filter_map(|part| part.strip_prefix("token=")).any(|token| self.is_token(token))
    }

    /// Checks where a request is from and for.
    pub(super) fn check_site(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text =
            |name| headers.get(name).map(|value: &hyper::header::HeaderValue| value.to_str());
        let hosts = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", self.port));
        let is_ours = |host: &str| hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host));
        let Some(Ok(host)) = text(HOST) else { return Err(Refusal::OtherSite) };
        let of_origin = match text(ORIGIN) {
            None => true,
            Some(origin) => origin
                .ok()
                .and_then(|origin| origin.strip_prefix("http://"))
                .is_some_and(|origin| origin.eq_ignore_ascii_case(host)),
        };
        // `none` is an address that was typed or opened, not a page's request.
        let of_site = match text(SEC_FETCH_SITE) {
            None => true,
            Some(site) => site.is_ok_and(|site| ["same-origin", "none"].contains(&site)),
        };
        if is_ours(host) && of_origin && of_site { Ok(()) } else { Err(Refusal::OtherSite) }
    }

    /// Checks the token of a request.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let name = self.cookie_name();
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
        let has_token = pairs.any(|pair| {
            let pair = pair.trim().split_once('=');
            pair.is_some_and(|(of, token)| of == name && self.is_token(token))
        });
        if has_token { Ok(()) } else { Err(Refusal::NoToken) }
    }

    /// Compares in a time that does not tell how much is right.
    fn is_token(&self, given: &str) -> bool {
        let pairs = self.token.bytes().zip(given.bytes());
        let differences = pairs.fold(0, |all, (one, other)| all | (one ^ other));
        given.len() == self.token.len() && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn requests_of_this_page_are_let_in() {
        let access = Access::new(8000);
        for of in [
            &[("host", "127.0.0.1:8000")][..],
            &[("host", "LOCALHOST:8000"), ("sec-fetch-site", "none")],
            &[
                ("host", "localhost:8000"),
                ("origin", "http://localhost:8000"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            assert_eq!(access.check_site(&headers(of)), Ok(()), "{of:?}");
        }
    }

    #[test]
    fn requests_of_other_pages_and_names_are_refused() {
        let access = Access::new(8000);
        for of in [
            &[][..],
            &[("host", "evil.example:8000")],
            &[("host", "127.0.0.1")],
            &[("host", "127.0.0.1:8001")],
            &[("host", "127.0.0.1:8000"), ("origin", "http://evil.example")],
            &[("host", "127.0.0.1:8000"), ("origin", "null")],
            &[("host", "127.0.0.1:8000"), ("origin", "http://localhost:8000")],
            &[("host", "127.0.0.1:8000"), ("origin", "https://127.0.0.1:8000")],
            &[("host", "127.0.0.1:8000"), ("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:8000"), ("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(access.check_site(&headers(of)), Err(Refusal::OtherSite), "{of:?}");
        }
    }

    #[test]
    fn the_token_is_asked_for() {
        let access = Access::new(8000);
        let token = access.token.clone();
        let query = format!("a=b&token={token}");
        assert!(access.is_in_query(Some(&query)));
        for query in [None, Some(""), Some("token="), Some(&query[..query.len() - 1])] {
            assert!(!access.is_in_query(query), "{query:?}");
        }
        let with = |cookie: &str| access.check_token(&headers(&[("cookie", cookie)]));
        assert_eq!(with(&format!("a=b; camshaft-8000={token}")), Ok(()));
        for cookie in [format!("camshaft-8001={token}"), "camshaft-8000=".to_owned(), token.clone()]
        {
            assert_eq!(with(&cookie), Err(Refusal::NoToken), "{cookie}");
        }
        assert_ne!(Access::new(8000).token, token);
    }
}
