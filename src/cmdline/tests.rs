use std::path::Path;

use super::*;
use crate::net::{ClientId, Method};

fn good(line: &str) -> Config {
    let parsed = parse(&format!("rootstream.image=http://m/i.tar {line}"));
    assert_eq!(parsed.mistakes, Vec::<String>::new());
    parsed.config
}

fn mistake(line: &str) -> String {
    parse(&format!("rootstream.image=http://m/i.tar {line}")).mistakes.join("; ")
}

#[test]
fn a_plain_menu_entry_is_understood() {
    let parsed = parse(
        "BOOT_IMAGE=vmlinuz console=ttyS0,115200 quiet rootstream.image=http://172.16.0.254/images/c/1.tar.zst \
         BOOTIF=01-52-54-00-ac-10-01 ip=dhcp rootstream.onfail=poweroff init=/lib/systemd/systemd -- --unit rescue.target",
    );
    assert!(parsed.mistakes.is_empty() && parsed.warnings.is_empty());
    let config = parsed.config;
    assert_eq!(config.image.urls, ["http://172.16.0.254/images/c/1.tar.zst"]);
    assert_eq!(config.net.bootif, Some([0x52, 0x54, 0, 0xac, 0x10, 1]));
    assert_eq!(config.onfail, OnFail::Poweroff);
    assert_eq!(config.init, Path::new("/lib/systemd/systemd"));
    assert_eq!(config.init_args, ["--unit", "rescue.target"]);
}

#[test]
fn quotes_group_words_as_in_the_kernel() {
    assert_eq!(split("a \"b c\" d=\"e f\" \"\""), ["a", "b c", "d=e f", ""]);
    assert_eq!(split("  \n"), Vec::<String>::new());
    assert_eq!(split("open=\"to the end"), ["open=to the end"]);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let parsed = parse("rootstream.stall=soon ip=10.0.0.1 rootstream.onfail=pray");
    assert_eq!(parsed.mistakes.len(), 4, "{:?}", parsed.mistakes);
    let failure = crate::failure::Failure::from_error(&parsed.check().unwrap_err());
    assert!(failure.why.contains("rootstream.stall=soon: not a duration"), "{}", failure.why);
    assert!(failure.why.contains("rootstream.image= is missing"), "{}", failure.why);
}

#[test]
fn a_bad_image_url_is_one_mistake_not_two() {
    assert_eq!(parse("rootstream.image=ftp://m/i.tar").mistakes.len(), 1);
    assert!(parse("rootstream.image=/images/i.tar").mistakes[0].contains("is not a URL"));
    assert!(parse("rootstream.image=dhcp,http://m/i.tar").mistakes[0].contains("dhcp stands alone"));
    assert!(parse("rootstream.image=http:///i.tar").mistakes[0].contains("names no host"));
}

#[test]
fn an_unknown_name_warns_with_the_nearest() {
    let warnings = parse("rootstream.imgae=http://m/i.tar").warnings;
    assert_eq!(warnings, ["unknown parameter rootstream.imgae is ignored; did you mean rootstream.image?"]);
    assert_eq!(parse("rootstream.somethingelse").warnings, ["unknown parameter rootstream.somethingelse is ignored"]);
    assert!(parse("foo.bar=1 panic=10").warnings.is_empty());
}

// F60
#[test]
fn what_this_version_cannot_do_is_refused_not_ignored() {
    for name in params::PLANNED {
        assert!(mistake(&format!("{name}=x")).contains("cannot do it"), "{name}");
        assert!(PARAMS.iter().all(|param| param.name != *name), "{name}");
    }
}

#[test]
fn durations_have_units_and_bounds() {
    assert_eq!(good("rootstream.stall=500ms").image.stall, Duration::from_millis(500));
    assert_eq!(good("rootstream.retry=2h").image.retry, Duration::from_secs(7200));
    assert_eq!(good("rootstream.dhcp=7").net.dhcp, Duration::from_secs(7));
    for bad in ["0", "-1s", "25h", "5d", "", "99999999999999999999", "18446744073709551615h"] {
        assert!(!mistake(&format!("rootstream.stall={bad}")).is_empty(), "{bad}");
    }
}

#[test]
fn digests_macs_and_client_ids() {
    let digest = "00ff".repeat(16);
    assert_eq!(good(&format!("rootstream.sha256={digest}")).image.sha256.unwrap()[..2], [0, 0xff]);
    assert!(mistake("rootstream.sha256=abcd").contains("4 hex digits instead of 64"));
    assert!(mistake("rootstream.sha256=é").contains("not hexadecimal"));
    assert_eq!(good("BOOTIF=52:54:00:AC:10:01").net.bootif, Some([0x52, 0x54, 0, 0xac, 0x10, 1]));
    assert!(mistake("BOOTIF=01-52-54").contains("not a MAC"));
    // InfiniBand, with the GUID and with what firmware makes of it.
    let port = Some([0xe4, 0x1d, 0x2d, 0x12, 0x34, 0x56]);
    for value in
        ["20-e4-1d-2d-03-00-12-34-56", "20-e4-1d-2d-12-34-56", "01-e4-1d-2d-12-34-56", "e4:1d:2d:03:00:12:34:56"]
    {
        assert_eq!(good(&format!("BOOTIF={value}")).net.bootif, port, "{value}");
    }
    assert_eq!(good("BOOTIF=20:54:00:ac:10:01").net.bootif, Some([0x20, 0x54, 0, 0xac, 0x10, 1]));
    assert_eq!(good("rootstream.clientid=ff:00:01").net.client_id, ClientId::Bytes(vec![0xff, 0, 1]));
    assert!(mistake("rootstream.clientid=f").contains("neither mac"));
}

#[test]
fn the_lease_can_name_the_image() {
    let parsed = parse("rootstream.image=dhcp");
    assert_eq!(parsed.mistakes, Vec::<String>::new());
    assert!(parsed.config.image.from_lease && parsed.config.image.urls.is_empty());
    assert!(!parse("rootstream.image=dhcp rootstream.image=http://m/i.tar").config.image.from_lease);
}

#[test]
fn overlays_add_up_in_order() {
    let line = "rootstream.overlay=http://m/a.tar,?http://m/${mac}.tar.gz rootstream.overlay=http://m/$x.tar";
    let overlays = good(line).image.overlays;
    let shown: Vec<(String, bool)> = overlays.iter().map(|o| (o.url.to_string(), o.optional)).collect();
    let overlay = |url: &str, optional| (url.to_owned(), optional);
    assert_eq!(
        shown,
        [overlay("http://m/a.tar", false), overlay("http://m/${mac}.tar.gz", true), overlay("http://m/$x.tar", false)]
    );
    for (bad, why) in [
        ("", "an empty name"),
        ("http://m/a.tar,", "an empty name"),
        ("?", "is not a URL"),
        ("??http://m/a.tar", "fetches http://"),
        ("/overlays/a.tar", "is not a URL"),
        ("http://m/${MAC}.tar", "\"MAC\" is none of mac,"),
        ("http://m/${mac.tar", "not closed"),
        ("http://m/o/1.json", "is a plain archive"),
    ] {
        let message = mistake(&format!("rootstream.overlay={bad}"));
        assert!(message.contains(why), "{bad}: {message}");
    }
}

// The loaders between the menu and the kernel must leave the names alone: quotes of GRUB are gone by now, and the
// kernel's own group words.
#[test]
fn names_in_braces_survive_quoting() {
    let overlays = |line: &str| good(line).image.overlays[0].url.to_string();
    assert_eq!(overlays("\"rootstream.overlay=http://m/${ip}.tar\""), "http://m/${ip}.tar");
    assert_eq!(overlays("rootstream.overlay=\"http://m/${ip}.tar\""), "http://m/${ip}.tar");
}

#[test]
fn a_flag_is_there_or_not() {
    assert!(good("rootstream.unsigned").image.unsigned);
    assert!(good("rootstream.unsigned=yes").image.unsigned);
    assert!(!good("rootstream.unsigned=no").image.unsigned);
    assert!(!good("").image.unsigned);
    assert!(mistake("rootstream.unsigned=please").contains("alone or yes, or no"));
}

// F36
#[test]
fn the_oldest_build_is_a_time_in_utc() {
    let not_before = |text: &str| good(&format!("rootstream.not-before={text}")).image.not_before.unwrap();
    assert_eq!(not_before("2026-11-22"), "2026-11-22T00:00:00Z");
    assert_eq!(not_before("2026-11-22T23:30:00-01:00"), "2026-11-23T00:30:00Z");
    assert!(mistake("rootstream.not-before=yesterday").contains("such as 2026-11-22"));
    assert!(mistake("rootstream.not-before").contains("such as 2026-11-22"));
}

#[test]
fn ports_come_from_both_parameters() {
    let net = good("ip=eth1:dhcp ip=10.0.0.1::10.0.0.254:255.0.0.0 rootstream.net=e1000e,52:54:00:ac:10:01").net;
    assert_eq!((net.ports.len(), net.ip.len()), (2, 2));
    assert_eq!(good("ip=dhcp").net.ports.len(), 0);
    assert_eq!(good("ip=eth0:dhcp6").net.ip[0].method, Method::Dhcp6);
    assert!(mistake("ip=eth0:dhcp5").contains("auto6, either6, link6"));
    assert!(mistake("rootstream.net=a,,b").contains("empty name"));
}

#[test]
fn module_options_follow_colons() {
    let modules = good("rootstream.modules=bonding:mode=1:miimon=100,dummy").modules;
    assert_eq!(modules[0].name, "bonding");
    assert_eq!(modules[0].options, "mode=1 miimon=100");
    assert_eq!(modules[1].options, "");
}

/// `make docs` writes the page: it runs this test with the variable set.
#[test]
fn the_page_in_docs_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/BOOT_PARAMETERS.md");
    if std::env::var_os("ROOTSTREAM_WRITE_DOCS").is_some() {
        std::fs::write(&path, boot_parameters_md()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == boot_parameters_md(), "docs/BOOT_PARAMETERS.md is stale: run make docs");
}
