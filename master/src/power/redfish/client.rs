//! Requests to a Redfish service: JSON over HTTPS, with the user's name and password in each.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rootstream::failure::{Advise, refuse};
use serde_json::Value;
use ureq::http::{Method, Request, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::super::access::Access;

/// No resource of a BMC is larger.
const LARGEST: u64 = 4 << 20;

/// A service, and as whom it is asked.
pub(super) struct Client {
    access: Access,
    agent: Agent,
    authorization: String,
}

/// A resource.
pub(super) struct Resource {
    pub(super) body: Value,
    /// Its version, which some services want to see in a change of it.
    tag: Option<String>,
}

impl Client {
    /// `exchange` bounds each request.
    ///
    /// # Errors
    /// The password or the certificates cannot be used.
    pub(super) fn new(access: &Access, exchange: Duration) -> Result<Self> {
        let password = access.password()?;
        let mut tls = TlsConfig::builder().disable_verification(access.bmc.insecure);
        if let Some(file) = &access.bmc.ca {
            let what = || format!("reading the certificates in {} for {}", file.display(), access.place());
            let todo = "name a PEM file with the certificate of who signed the BMC's";
            let bytes = fs::read(file).advise(what(), todo)?;
            let items: Result<Vec<PemItem<'_>>, _> = parse_pem(&bytes).collect();
            let certificates = items.advise(what(), todo)?.into_iter().filter_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = certificates.collect();
            if certificates.is_empty() {
                return Err(refuse(format!("{}: there is none", what()), todo));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .https_only(true)
            .http_status_as_error(false)
            // A BMC is on a network of the site; its password goes to nobody in between.
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(exchange))
            .timeout_connect(Some(exchange.min(Duration::from_secs(10))))
            .build();
        let authorization = format!("Basic {}", STANDARD.encode(format!("{}:{password}", access.user)));
        Ok(Self { access: access.clone(), agent: config.into(), authorization })
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// The service does not answer, refuses, or answers something else than JSON.
    pub(super) fn get(&self, path: &str) -> Result<Resource> {
        self.ask(Method::GET, path, None, None)
    }

    /// Starts an action.
    ///
    /// # Errors
    /// The service does not answer or refuses.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<()> {
        self.ask(Method::POST, path, Some(body), None).map(drop)
    }

    /// Changes a resource that was read.
    ///
    /// # Errors
    /// The service does not answer or refuses.
    pub(super) fn patch(&self, path: &str, read: &Resource, body: &Value) -> Result<()> {
        self.ask(Method::PATCH, path, Some(body), read.tag.as_deref()).map(drop)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>, tag: Option<&str>) -> Result<Resource> {
        let what = format!("asking {}: {method} {path}", self.access.place());
        match self.answer(method, path, body, tag) {
            Ok(resource) => Ok(resource),
            Err((why, todo)) => Err(why).advise(what, todo),
        }
    }

    fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        tag: Option<&str>,
    ) -> Result<Resource, (anyhow::Error, String)> {
        // A service's links are paths; a whole URL could lead the password elsewhere.
        if !path.starts_with('/') || path.starts_with("//") {
            return Err((anyhow!("{path:?} is no path on the same service"), ODD.to_owned()));
        }
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.host()))
            .header("Authorization", &self.authorization)
            .header("Accept", "application/json")
            .header("OData-Version", "4.0");
        if let Some(tag) = tag {
            request = request.header("If-Match", tag);
        }
        let answered = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string());
                request.map_err(ureq::Error::from).and_then(|request| self.agent.run(request))
            }
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        match answered {
            Ok(answer) => self.read(answer),
            Err(error) => {
                let todo = self.todo(&error);
                Err((error.into(), todo))
            }
        }
    }

    fn read(&self, mut answer: Response<Body>) -> Result<Resource, (anyhow::Error, String)> {
        let status = answer.status();
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
        let body: Option<Value> = text.as_ref().ok().and_then(|text| serde_json::from_str(text).ok());
        let Access { user, password_file, .. } = &self.access;
        match status.as_u16() {
            401 => Err((
                anyhow!("it does not take the user {user} with this password (401)"),
                format!("write the password of {user} into {} as one line", password_file.display()),
            )),
            403 => Err((
                anyhow!("the user {user} may not do this (403)"),
                format!("make {user} an administrator or operator in the BMC"),
            )),
            200..=299 => match (body, text) {
                (Some(body), _) => Ok(Resource { body, tag }),
                // An action has no answer to read.
                (None, Ok(text)) if text.trim().is_empty() => Ok(Resource { body: Value::Null, tag }),
                (None, Ok(_)) => Err((anyhow!("what it answers is no JSON"), ODD.to_owned())),
                (None, Err(error)) => {
                    let todo = self.todo(&error);
                    Err((error.into(), todo))
                }
            },
            _ => {
                let said = body.as_ref().and_then(message).unwrap_or_default();
                Err((anyhow!("it answers {status}{}{said}", if said.is_empty() { "" } else { ": " }), ODD.to_owned()))
            }
        }
    }

    fn host(&self) -> String {
        format!("{}:{}", self.access.bmc.ip, self.access.bmc.port.unwrap_or(443))
    }

    fn todo(&self, error: &ureq::Error) -> String {
        let address = self.access.bmc.ip;
        match error {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => CERTIFICATE.to_owned(),
            // rustls's own errors come wrapped in those of the socket.
            ureq::Error::Io(error)
                if error.get_ref().is_some_and(|inner| inner.to_string().contains("certificate")) =>
            {
                CERTIFICATE.to_owned()
            }
            _ => format!(
                "see whether {address} answers (ping {address}), whether the BMC has power and its cable, and whether \
                 https://{}/redfish/v1/ is open on the way",
                self.host()
            ),
        }
    }
}

/// What to do about answers that the standard has no place for.
pub(super) const ODD: &str = "see whether this BMC speaks Redfish (/redfish/v1/ in a browser) and has its newest firmware; many speak IPMI as well";

const CERTIFICATE: &str = "name who signed its certificate in nodes.toml, ca = \"FILE\" in PEM, or believe any with insecure = true, \
     which shows the password to whoever answers at that address";

/// The first message of a Redfish error.
fn message(body: &Value) -> Option<&str> {
    let error = body.get("error")?;
    let first = error.get("@Message.ExtendedInfo").and_then(|all| all.get(0)).and_then(|first| first.get("Message"));
    first.or_else(|| error.get("message"))?.as_str()
}

/// The path that a link leads to: `{"@odata.id": "/redfish/v1/Systems/1"}`.
///
/// # Errors
/// There is no such link.
pub(super) fn link<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    let path = value.get(name).and_then(|link| link.get("@odata.id")).and_then(Value::as_str);
    path.with_context(|| format!("there is no link to {name}"))
}

/// The paths that a collection's members are at.
pub(super) fn members(collection: &Value) -> Vec<&str> {
    let members = collection.get("Members").and_then(Value::as_array).into_iter().flatten();
    members.filter_map(|member| member.get("@odata.id").and_then(Value::as_str)).collect()
}
