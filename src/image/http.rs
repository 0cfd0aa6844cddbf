//! One HTTP request for an image, through ureq: its limits, its errors, the head of the answer.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use ureq::config::Config;
use ureq::http::{HeaderMap, Response as Head, StatusCode, Uri, header};
use ureq::typestate::WithoutBody;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, NextTimeout};
use ureq::{Agent, Body, RequestBuilder, ResponseExt as _};

use super::line::{Direct, Line};
use super::resume::{self, Answer, Version};
use super::secure::Secure;
use super::{Resolve, Sources, redirect};

const REDIRECTS: usize = 5;
/// Room for received bytes. The limit for a head has to be the same: after a 1xx answer ureq
/// compares it with all that has been received, the beginning of the image included.
const BUFFER: usize = 128 * 1024;

/// Makes requests.
pub(super) struct Client {
    config: Config,
    tls: Option<Arc<ClientConfig>>,
    resolve: Arc<dyn Resolve>,
    stall: Duration,
}

/// The bytes that are asked for, where it is not the whole file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// The first byte's offset.
    pub(super) from: u64,
    /// The last byte's offset; none: to the end.
    pub(super) last: Option<u64>,
    /// The strong entity tag of the version that they must be of.
    pub(super) strong: Option<&'a str>,
}

/// An answer with a body worth looking at.
pub(super) struct Response {
    /// What kind of answer, and of which file.
    pub(super) answer: Answer,
    /// Where it came from, after redirects.
    pub(super) url: String,
    /// The bytes. Ends early with an error, never silently, when the length is known.
    pub(super) body: Box<dyn Read + Send>,
}

/// Why there is no such answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may work later.
    Passing(String),
    /// The server answered with a status that seldom changes by itself.
    Status(StatusCode),
    /// The server is busy and said for how long, if it did.
    Busy(StatusCode, Option<Duration>),
    /// Trying again cannot help.
    Permanent(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(why) | Self::Permanent(why) => f.write_str(why),
            Self::Status(status) | Self::Busy(status, _) => write!(f, "the server answered {status}"),
        }
    }
}

impl Client {
    /// A client that gives up on a connection that is silent for `rootstream.stall=`.
    ///
    /// # Errors
    /// A trusted certificate cannot be used.
    pub(super) fn new(sources: Sources<'_>) -> anyhow::Result<Self> {
        let stall = sources.settings.stall;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            // ureq would read the bodies of redirects, however long, and panics at one that is cut.
            .max_redirects(0)
            .max_idle_connections(0)
            .input_buffer_size(BUFFER)
            .max_response_header_size(BUFFER)
            .user_agent(concat!("rootstream/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(stall))
            .timeout_connect(Some(stall))
            .timeout_send_request(Some(stall))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .build();
        let tls = sources.anchors.certificates.config()?;
        Ok(Self { config, tls, resolve: Arc::clone(sources.resolver), stall })
    }

    /// Asks for the file at `url`, or for a part of it.
    ///
    /// # Errors
    /// There is no 200, 206 or 416 with an unencoded body.
    pub(super) fn get(&self, url: &str, span: Option<Span<'_>>) -> Result<Response, Refusal> {
        let line = Line::default();
        let response = self.follow(url, span, &line)?;
        let url = response.get_uri().to_string();
        let status = response.status();
        let headers = response.headers();
        let answer = match status {
            StatusCode::OK => Answer::Whole(version(headers, length(headers))),
            StatusCode::PARTIAL_CONTENT => {
                match text(headers, &header::CONTENT_RANGE).and_then(resume::content_range) {
                    Some((start, total)) => Answer::Part { start, version: version(headers, total) },
                    None => Answer::Useless("sent a part without a proper Content-Range"),
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Answer::Useless("answered 416: no such range"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Refusal::Busy(status, retry_after(headers)));
            }
            _ if status.is_server_error() => return Err(Refusal::Passing(format!("the server answered {status}"))),
            _ => return Err(Refusal::Status(status)),
        };
        for encoding in headers.get_all(header::CONTENT_ENCODING) {
            if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
                return Err(Refusal::Permanent(format!(
                    "the server sent Content-Encoding: {}, which was not asked for",
                    encoding.as_bytes().escape_ascii()
                )));
            }
        }
        let encrypted = response.get_uri().scheme_str() != Some("http");
        let plain = response.body().content_length().filter(|_| !encrypted);
        let body = Direct::new(response.into_body().into_reader(), line, self.stall, plain);
        Ok(Response { answer, url, body: Box::new(body) })
    }

    /// The first answer that is no redirect.
    fn follow(&self, url: &str, span: Option<Span<'_>>, line: &Line) -> Result<Head<Body>, Refusal> {
        let names = Names { resolve: Arc::clone(&self.resolve) };
        let secure = Secure { config: self.tls.clone() };
        let connector = ().chain(line.clone()).chain(secure);
        let agent = Agent::with_parts(self.config.clone(), connector, names);
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let response = request(&agent, &url, span).call().map_err(refusal)?;
            if !redirect::leads_on(response.status()) {
                return Ok(response);
            }
            let Some(location) = text(response.headers(), &header::LOCATION) else {
                return Err(Refusal::Permanent(format!(
                    "the server answered {} without a usable Location",
                    response.status()
                )));
            };
            url = redirect::next(response.get_uri(), location).map_err(Refusal::Permanent)?;
        }
        Err(Refusal::Permanent(format!("more than {REDIRECTS} redirects")))
    }
}

fn request(agent: &Agent, url: &str, span: Option<Span<'_>>) -> RequestBuilder<WithoutBody> {
    let request = agent.get(url);
    let Some(Span { from, last, strong }) = span else { return request };
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    let request = request.header(header::RANGE, format!("bytes={from}-{last}"));
    match strong {
        Some(strong) => request.header(header::IF_RANGE, strong),
        None => request,
    }
}

/// ureq's resolver: names through stage 1's own.
#[derive(Debug)]
struct Names {
    resolve: Arc<dyn Resolve>,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(default_port);
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let addresses = match literal {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self
                .resolve
                .resolve(host, port)
                .map_err(|error| ureq::Error::Other(format!("resolving {host}: {error:#}").into()))?,
        };
        let mut kept = self.empty();
        for address in addresses.into_iter().take(16) {
            kept.push(address);
        }
        if kept.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(kept) }
    }
}

/// An error that no further try can mend.
#[derive(Debug)]
struct Hopeless(String);

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// An error that no further try can mend.
pub(super) fn refuse(why: String) -> ureq::Error {
    ureq::Error::Other(Box::new(Hopeless(why)))
}

fn refusal(error: ureq::Error) -> Refusal {
    match error {
        ureq::Error::Other(other) if other.is::<Hopeless>() => Refusal::Permanent(other.to_string()),
        ureq::Error::Other(other) => Refusal::Passing(other.to_string()),
        ureq::Error::BadUri(why) => Refusal::Permanent(format!("not an address that can be fetched: {why}")),
        ureq::Error::Timeout(_) => Refusal::Passing(format!("no answer in time ({error})")),
        error => Refusal::Passing(error.to_string()),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    // With chunks, a Content-Length says nothing (RFC 9112 6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    text(headers, &header::CONTENT_LENGTH)?.trim().parse().ok()
}

fn version(headers: &HeaderMap, total: Option<u64>) -> Version {
    let strong = |tag: &&str| tag.starts_with('"') && tag.len() > 2;
    Version {
        etag: text(headers, &header::ETAG).filter(strong).map(str::to_owned),
        modified: text(headers, &header::LAST_MODIFIED).map(str::to_owned),
        total,
    }
}

/// Retry-After as a duration; a date is measured against the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, &header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(text(headers, &header::DATE)?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Resolve for Nobody {
        fn resolve(&self, _: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
            anyhow::bail!("nobody knows, port {port}")
        }
    }

    #[test]
    fn addresses_are_not_resolved() {
        let names = Names { resolve: Arc::new(Nobody) };
        let ask = |uri: &str| {
            let timeout = NextTimeout {
                after: Duration::from_secs(1).into(),
                reason: ureq::Timeout::Resolve,
                ..NextTimeout::default()
            };
            match names.resolve(&uri.parse().unwrap(), &Config::default(), timeout) {
                Ok(addresses) => addresses[0].to_string(),
                Err(error) => format!("{:?}", refusal(error)),
            }
        };
        assert_eq!(ask("http://10.0.0.1/x"), "10.0.0.1:80");
        assert_eq!(ask("http://[fd00::1]:8080/x"), "[fd00::1]:8080");
        assert_eq!(ask("https://10.0.0.1/x"), "10.0.0.1:443");
        assert_eq!(ask("http://name/x"), "Passing(\"resolving name: nobody knows, port 80\")");
    }

    // F22
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            headers.insert(header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
            headers
        };
        assert_eq!(retry_after(&headers("17")), Some(Duration::from_secs(17)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:50:07 GMT")), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:00:00 GMT")), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers("soon")), None);
    }
}
