//! Where a redirect leads, and whether it is followed there. No I/O.

use ureq::http::{StatusCode, Uri};

use super::tls::is_secure;
use crate::url::host;

/// Whether an answer of this status is a redirect that a request for a file follows (RFC 9110 15.4).
pub(super) fn leads_on(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The URL that a Location in the answer to `base` means.
///
/// # Errors
/// It is not followed: it leads out of `https://`, or to what is not HTTP.
pub(super) fn next(base: &Uri, location: &str) -> Result<String, String> {
    let url = resolve(base, location);
    let scheme = scheme(&url).unwrap_or_default();
    let http = scheme.eq_ignore_ascii_case("http") || is_secure(&url);
    if http && let Err(why) = host(&url) {
        return Err(format!("a redirect is not followed: {why}"));
    }
    let allowed = is_secure(&url) || (scheme.eq_ignore_ascii_case("http") && base.scheme_str() != Some("https"));
    if allowed { Ok(url) } else { Err(format!("a redirect to {url} is not followed: the scheme changes")) }
}

/// A reference relative to `base` as a URL (RFC 3986 5.2).
fn resolve(base: &Uri, reference: &str) -> String {
    let reference = reference.split('#').next().unwrap_or_default();
    if scheme(reference).is_some() {
        return reference.to_owned();
    }
    let scheme = base.scheme_str().unwrap_or_default();
    if reference.starts_with("//") {
        return format!("{scheme}:{reference}");
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let folder = || base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let (path, query) = match path {
        "" => (base.path().to_owned(), query.or(base.query())),
        _ if path.starts_with('/') => (without_dots(path), query),
        _ => (without_dots(&format!("{}/{path}", folder())), query),
    };
    let authority = base.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}")
}

/// The scheme that a reference begins with (RFC 3986 3.1).
fn scheme(reference: &str) -> Option<&str> {
    let (scheme, _) = reference.split_once(':')?;
    let sound = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (sound && scheme.starts_with(|first: char| first.is_ascii_alphabetic())).then_some(scheme)
}

/// A path that begins with a slash, with `.` and `..` followed (RFC 3986 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => _ = kept.pop(),
            segment => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(base: &str, location: &str) -> Result<String, String> {
        next(&base.parse().unwrap(), location)
    }

    // F30
    #[test]
    fn a_location_is_read_as_rfc_3986_says() {
        for (location, url) in [
            ("http://m2/x?y#z", "http://m2/x?y"),
            ("HTTPS://m2/x", "HTTPS://m2/x"),
            ("//m2:81/x", "http://m2:81/x"),
            ("/x", "http://m:80/x"),
            ("/x/../y/./z/..", "http://m:80/y/"),
            ("/../../x", "http://m:80/x"),
            ("x", "http://m:80/a/b/x"),
            ("./x:y", "http://m:80/a/b/x:y"),
            ("../x?a=/../b", "http://m:80/a/x?a=/../b"),
            ("..", "http://m:80/a/"),
            ("?other", "http://m:80/a/b/c?other"),
            ("#part", "http://m:80/a/b/c?query"),
            ("", "http://m:80/a/b/c?query"),
        ] {
            assert_eq!(follow("http://m:80/a/b/c?query", location).unwrap(), url, "{location}");
        }
        assert_eq!(follow("http://m", "x").unwrap(), "http://m/x");
        assert_eq!(follow("https://[::1]:8/a", "b").unwrap(), "https://[::1]:8/b");
        assert_eq!(follow("http://[fd00::1]:8/a", "//[fd00::2]/b").unwrap(), "http://[fd00::2]/b");
        let zone = follow("http://[fd00::1]/a", "http://[fe80::1%25eth0]/b").unwrap_err();
        assert!(zone.starts_with("a redirect is not followed: [fe80::1%25eth0] is an address of one link"), "{zone}");
    }

    // F30
    #[test]
    fn a_redirect_never_leaves_https() {
        for (base, location) in [
            ("https://10.0.0.1/x", "http://10.0.0.1/x"),
            ("https://10.0.0.1/x", "HTTP://10.0.0.1/x"),
            ("http://10.0.0.1/x", "ftp://10.0.0.1/x"),
            ("http://10.0.0.1/x", "file:/x"),
        ] {
            let why = follow(base, location).unwrap_err();
            assert!(why.contains(location) && why.contains("the scheme changes"), "{why}");
        }
        assert!(follow("https://10.0.0.1/x", "//10.0.0.2/x").unwrap().starts_with("https:"));
    }

    #[test]
    fn only_redirects_lead_on() {
        let followed: Vec<u16> = (300..400).filter(|status| leads_on(StatusCode::from_u16(*status).unwrap())).collect();
        assert_eq!(followed, [301, 302, 303, 307, 308]);
    }
}
