//! The values of parameters, each from its text.

use std::net::IpAddr;
use std::time::Duration;

use super::{OnFail, Step, ip};
use crate::facts::Template;
use crate::image::Overlay;
use crate::mac::{self, parse_mac};
use crate::modules::Request;
use crate::net::{ClientId, Ip};
use crate::url;

/// `60s`, `10m`, `1h`, `500ms`; a bare number is seconds. At most a day.
pub(super) fn duration(value: &str) -> Result<Duration, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "not a duration such as 30s or 10m".to_owned())?;
    let unit = match value.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        unit => return Err(format!("unknown unit {unit:?}; ms, s, m and h are known")),
    };
    let duration = Duration::from_millis(number.saturating_mul(unit));
    if duration.is_zero() || duration > Duration::from_secs(86_400) {
        return Err("must be more than nothing and at most 24h".to_owned());
    }
    Ok(duration)
}

/// Comma-separated, nothing empty.
pub(super) fn list(value: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> = value.split(',').map(str::to_owned).collect();
    if items.iter().any(String::is_empty) {
        return Err("an empty name in the list".to_owned());
    }
    Ok(items)
}

/// Mirrors of one image.
pub(super) fn urls(value: &str) -> Result<Vec<String>, String> {
    let urls = list(value)?;
    urls.iter().try_for_each(|url| check_url(url))?;
    Ok(urls)
}

/// Whether this can be fetched.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(match url.split_once("://") {
            Some((scheme, _)) => format!("this version fetches http:// and https://, not {scheme}://"),
            None if url == "dhcp" => "dhcp stands alone: the lease names the image then, and has no mirrors".to_owned(),
            None => format!("{url} is not a URL such as http://master/images/compute/1.tar.zst"),
        });
    }
    url::host(url).map(drop)
}

/// Archives for on top of the image, each with what differs from node to node.
pub(super) fn overlays(value: &str) -> Result<Vec<Overlay>, String> {
    let overlay = |item: String| {
        let url = item.strip_prefix('?').unwrap_or(&item);
        check_url(url)?;
        if url.ends_with(".json") {
            return Err(format!("{url} is a manifest; an overlay is a plain archive"));
        }
        Ok(Overlay { url: Template::parse(url)?, optional: url.len() < item.len() })
    };
    list(value)?.into_iter().map(overlay).collect()
}

/// A parameter that is there or not; a value says which.
pub(super) fn flag(value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "yes" | "on" => Ok(true),
        "0" | "no" | "off" => Ok(false),
        _ => Err("alone or yes, or no; nothing else".to_owned()),
    }
}

/// 64 hex digits.
pub(super) fn sha256(value: &str) -> Result<[u8; 32], String> {
    let bytes = hex(value).ok_or("not hexadecimal")?;
    <[u8; 32]>::try_from(bytes).map_err(|bytes| format!("{} hex digits instead of 64", bytes.len() * 2))
}

/// A port, and how it gets its address.
pub(super) fn ip(value: &str) -> Result<Ip, String> {
    ip::parse(value)
}

/// `01-52-54-00-ac-10-01`, as PXELINUX writes it: hardware type and address. Colons and a missing hardware type are taken
/// too. Over InfiniBand the type is 20 (32 in hex) and the address the GUID; or the firmware makes believe it is Ethernet,
/// with a MAC made of six of those eight bytes.
pub(super) fn mac_of_bootif(value: &str) -> Result<[u8; 6], String> {
    let address = match value.split_once(['-', ':']) {
        // Of six bytes or eight.
        Some(("01" | "20", address)) if matches!(address.len(), 17 | 23) => address,
        _ => value,
    };
    let guid = |text: &str| match mac::bytes(text)?.as_slice() {
        [a, b, c, _, _, d, e, f] => Some([*a, *b, *c, *d, *e, *f]),
        _ => None,
    };
    parse_mac(address).or_else(|| guid(address)).ok_or_else(|| {
        "not a MAC such as 01-52-54-00-ac-10-01, nor a GUID such as 20-e4-1d-2d-03-00-12-34-56".to_owned()
    })
}

/// An address of either family; brackets around IPv6 as dracut writes them.
pub(super) fn address(value: &str) -> Result<IpAddr, String> {
    value.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| "not an IP address".to_owned())
}

/// What option 61 carries.
pub(super) fn client_id(value: &str) -> Result<ClientId, String> {
    match value {
        "mac" => Ok(ClientId::Mac),
        "none" => Ok(ClientId::None),
        "duid" => Ok(ClientId::Duid),
        digits => match hex(&digits.replace(':', "")) {
            // RFC 2132 9.14: at least two bytes; an option holds 255.
            Some(bytes) if (2..=255).contains(&bytes.len()) => Ok(ClientId::Bytes(bytes)),
            _ => Err("neither mac, none, duid nor 2 to 255 bytes in hex".to_owned()),
        },
    }
}

/// `name:option=value:option=value,name,…`.
pub(super) fn modules(value: &str) -> Result<Vec<Request>, String> {
    let request = |item: String| {
        let (name, options) = item.split_once(':').unwrap_or((&item, ""));
        Request { name: name.to_owned(), options: options.replace(':', " ") }
    };
    Ok(list(value)?.into_iter().map(request).collect())
}

/// The failure policy.
pub(super) fn onfail(value: &str) -> Result<OnFail, String> {
    Ok(match value {
        "retry" => OnFail::Retry,
        "reboot" => OnFail::Reboot,
        "poweroff" => OnFail::Poweroff,
        "halt" => OnFail::Halt,
        "shell" => OnFail::Shell,
        _ => return Err("one of retry, reboot, poweroff, halt, shell".to_owned()),
    })
}

/// What is logged; errors always are.
pub(super) fn log_level(value: &str) -> Result<log::LevelFilter, String> {
    Ok(match value {
        "error" => log::LevelFilter::Error,
        "warn" => log::LevelFilter::Warn,
        "info" => log::LevelFilter::Info,
        "debug" => log::LevelFilter::Debug,
        _ => return Err("one of error, warn, info, debug".to_owned()),
    })
}

/// The step to stop before.
pub(super) fn break_step(value: &str) -> Result<Step, String> {
    Ok(match value {
        "modules" => Step::Modules,
        "net" => Step::Net,
        "image" => Step::Image,
        "switch" => Step::Switch,
        _ => return Err("one of modules, net, image, switch".to_owned()),
    })
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok()).collect()
}
