//! What a real lldpd says about the port at the other end of the cable.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod lab;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use lab::{Lab, image, lines, rehearse, settings_of};
use rootstream::failure::Failure;
use rootstream::net::{Settings, bring_up};
use rootstream_lab::faulty::{self, Server};
use rootstream_lab::packages::unpacked;

const MAC: &str = "52:54:00:ac:10:01";
const MASTER: [u8; 4] = [172, 16, 0, 254];
/// lldpd, and those of its libraries that few machines have.
const PACKAGES: [&str; 5] = ["lldpd", "libsnmp40", "libsensors5", "libpci3", "libwrap0"];

// F2
#[test]
fn the_switch_stands_in_the_failure_and_in_the_record() {
    let folders = PACKAGES.map(|package| unpacked(package).unwrap());
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let _lldpd = lab.lldpd(&folders, "srv0", "sw3");
    lab.node(|| {
        let settings = Settings { dhcp: Duration::from_secs(8), ..settings_of("") };
        let failure = Failure::from_error(&bring_up(&settings).unwrap_err());
        assert_eq!(failure.what, "no DHCP server answered on eth0 (52:54:00:ac:10:01)");
        assert!(failure.why.ends_with(", eth0 is in port srv0 of switch sw3 (LLDP)"), "{}", failure.why);
        assert_eq!(lines("net: eth0 is in "), ["net: eth0 is in port srv0 of switch sw3 (LLDP)"], "said once");
    });

    // A boot that does not wait hears it while the image comes.
    let body = image();
    let _web = Server::start_at(SocketAddr::from((MASTER, 80)), move |_, stream| {
        thread::sleep(Duration::from_secs(5));
        faulty::answer(stream, "200 OK", &[("ETag", "\"1\"")], &body)
    })
    .unwrap();
    let (code, record) = rehearse(&lab, "rootstream.image=http://172.16.0.254/i.tar ip=172.16.0.1:::24::eth0:none");
    assert_eq!(code, 0, "{record}");
    let switch = &record["port"]["switch"];
    assert_eq!((&switch["system"], &switch["description"]), (&"sw3".into(), &"srv0".into()), "{record}");
}
