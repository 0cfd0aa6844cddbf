//! IPMI 2.0 over LAN, through ipmitool(1).
//!
//! The password reaches it in the file that the administrator keeps it in, so it is neither in its arguments nor in
//! its environment, where other users and logs would find it.

use std::io;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rootstream::failure::{Advise, refuse};

use super::access::Access;
use super::bmc::{Bmc, Info, Order, Port, Sensor, State};
use super::program::{self, Ended};

/// Seconds until ipmitool sends again what was not answered, and how often it does.
const RESEND: [&str; 4] = ["-N", "2", "-R", "2"];

/// A BMC that ipmitool speaks to.
#[derive(Debug)]
pub(super) struct Ipmi {
    access: Access,
    exchange: Duration,
}

impl Ipmi {
    /// `exchange` bounds each call of ipmitool.
    ///
    /// # Errors
    /// There is no password, or others can read it.
    pub(super) fn new(access: &Access, exchange: Duration) -> Result<Self> {
        // ipmitool reads the file itself; here it is about who else can.
        access.password()?;
        Ok(Self { access: access.clone(), exchange })
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let what = format!("asking {} for `{}`", self.access.place(), words.join(" "));
        let mut command = ipmitool(&self.access);
        // With what it says of the opening of its session: why that failed is not in its last line.
        command.arg("-v").args(words);
        let ended = match program::run(&mut command, self.exchange) {
            Err(error) if is_missing(&error) => return Err(error).advise(what, MISSING),
            Err(error) => return Err(error).advise(what, Trouble::Silent.todo(&self.access)),
            Ok(ended) => ended,
        };
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        let trouble = Trouble::of(&ended.stderr);
        Err(anyhow!("{}", trouble.why(&ended))).advise(what, trouble.todo(&self.access))
    }
}

/// What to do where ipmitool cannot be started.
pub(super) const MISSING: &str = "install it: apt-get install ipmitool, or dnf install ipmitool";

/// Whether a program could not be started because it is not there.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// ipmitool, told where the BMC is and how to open a session there.
pub(super) fn ipmitool(access: &Access) -> Command {
    let mut command = Command::new("ipmitool");
    command.args(["-I", "lanplus", "-L", "ADMINISTRATOR", "-H", &access.bmc.ip.to_string(), "-U", &access.user]);
    command.arg("-f").arg(&access.password_file).args(RESEND);
    if let Some(port) = access.bmc.port {
        command.args(["-p", &port.to_string()]);
    }
    if let Some(cipher) = access.bmc.cipher {
        command.args(["-C", &cipher.to_string()]);
    }
    // Its own texts, whatever this terminal speaks, and no password from the user's environment.
    command.env("LC_ALL", "C").env_remove("IPMI_PASSWORD").env_remove("IPMITOOL_PASSWORD");
    command
}

/// Why ipmitool failed, as far as its messages tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing came back.
    Silent,
    /// The password is another one.
    Password,
    /// There is no such user, or it may not do this.
    User,
    /// The two have no cipher suite in common.
    Cipher,
    /// Something else, which its messages say.
    Other,
}

impl Trouble {
    pub(super) fn of(said: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
        if has(&["HMAC is invalid", "invalid integrity check value"]) {
            Self::Password
        } else if has(&["unauthorized name", "unauthorized role", "invalid role", "nsufficient privilege"]) {
            Self::User
        } else if has(&[
            "no matching cipher",
            "invalid authentication algorithm",
            "invalid integrity algorithm",
            "invalid confidentiality",
        ]) {
            Self::Cipher
        } else if has(&["Unable to establish", "Get Auth Capabilities error", "no response", "No response", "timeout"])
        {
            Self::Silent
        } else {
            Self::Other
        }
    }

    fn why(self, ended: &Ended) -> String {
        match self {
            Self::Silent => "it does not answer".to_owned(),
            Self::Password => "it does not take the password".to_owned(),
            Self::User => "it does not know the user, or the user may not do this".to_owned(),
            Self::Cipher => "it does not take the cipher suite".to_owned(),
            Self::Other => {
                // Its last words are about what failed; those before about what it tried.
                let is_word = |line: &&str| !line.is_empty() && !line.contains("IANA PEN registry");
                let last = ended.stderr.lines().map(str::trim).rfind(is_word);
                format!("ipmitool ended with {}: {}", ended.status, last.unwrap_or("no message"))
            }
        }
    }

    pub(super) fn todo(self, access: &Access) -> String {
        let Access { user, password_file, .. } = access;
        let (address, port) = (access.bmc.ip, access.bmc.port.unwrap_or(623));
        match self {
            Self::Silent => format!(
                "see whether {address} answers (ping {address}), whether the BMC has power and its cable, and whether IPMI over LAN \
                 is switched on in it and UDP port {port} is open on the way; a BMC that hangs wants its own reset or the plug"
            ),
            Self::Password => {
                format!(
                    "write the password of {user} into {} as one line; BMCs cut it at 16 or 20 bytes",
                    password_file.display()
                )
            }
            Self::User => {
                format!("look in the BMC whether {user} exists, is enabled and is an administrator on the LAN channel")
            }
            Self::Cipher => {
                "name a cipher suite that the BMC takes in nodes.toml: cipher = 17, or 3 where it is old".to_owned()
            }
            Self::Other => {
                "the same by hand, with more words: ipmitool -I lanplus -vv; some BMCs refuse while their node starts"
                    .to_owned()
            }
        }
    }
}

impl Bmc for Ipmi {
    fn state(&self) -> Result<State> {
        let said = self.run(&["chassis", "power", "status"])?;
        match said.trim().rsplit(' ').next() {
            Some("on") => Ok(State::On),
            Some("off") => Ok(State::Off),
            _ => Err(refuse(
                format!("{} says neither on nor off, but: {}", self.access.place(), said.trim()),
                Trouble::Other.todo(&self.access),
            )),
        }
    }

    fn order(&self, order: Order) -> Result<()> {
        self.run(&["chassis", "power", order.word()]).map(drop)
    }

    fn network_boot_once(&self, efi: bool) -> Result<()> {
        let words = ["chassis", "bootdev", "pxe", "options=efiboot"];
        self.run(words.get(..if efi { 4 } else { 3 }).unwrap_or(&words)).map(drop)
    }

    fn info(&self) -> Result<Info> {
        let controller = self.run(&["mc", "info"])?;
        // What follows is in many BMCs, and in none of them all of it.
        let or_nothing = |words: &[&str]| self.run(words).unwrap_or_default();
        let inventory = or_nothing(&["fru", "print", "0"]);
        let vendor =
            field(&inventory, &["Product Manufacturer", "Board Mfg"]).or(field(&controller, &["Manufacturer Name"]));
        let is_dell = vendor.as_deref().is_some_and(|vendor| vendor.to_ascii_uppercase().contains("DELL"));
        Ok(Info {
            model: field(&inventory, &["Product Name", "Board Product"]),
            serial: field(&inventory, &["Product Serial", "Chassis Serial", "Board Serial"]),
            firmware: field(&controller, &["Firmware Revision"]),
            bios: None,
            bmc_mac: field(&or_nothing(&["lan", "print"]), &["MAC Address"]).map(|mac| mac.to_ascii_lowercase()),
            ports: if is_dell { dell_ports(&or_nothing(&["delloem", "mac"])) } else { Vec::new() },
            sensors: sensors(&or_nothing(&["-c", "sdr", "list", "full"])),
            vendor,
        })
    }
}

/// The first of these names that has a value, in lines such as `Firmware Revision         : 9.08`.
fn field(said: &str, names: &[&str]) -> Option<String> {
    let value = |name: &&str| {
        said.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, value)| key.trim() == *name && !value.trim().is_empty())
    };
    names.iter().find_map(value).map(|(_, value)| value.trim().to_owned())
}

/// Lines such as `Inlet Temp,23,degrees C,ok`, of sensors that have a reading.
fn sensors(said: &str) -> Vec<Sensor> {
    let sensor = |line: &str| {
        let mut cells = line.split(',').map(str::trim);
        let (name, value, unit, status) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
        let has_reading = value.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        has_reading.then(|| Sensor {
            name: name.to_owned(),
            reading: format!("{value} {unit}").trim().to_owned(),
            status: status.to_owned(),
        })
    };
    said.lines().filter_map(sensor).collect()
}

/// What Dell's own command says of the ports on the board: number, MAC, whether it is enabled.
fn dell_ports(said: &str) -> Vec<Port> {
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        let (number, mac) = (words.next()?, words.next()?);
        let is_mac = mac.split(':').count() == 6 && mac.split(':').all(|part| u8::from_str_radix(part, 16).is_ok());
        (is_mac && number.bytes().all(|c| c.is_ascii_digit()))
            .then(|| Port { name: format!("NIC {number}"), mac: mac.to_ascii_lowercase() })
    };
    said.lines().filter_map(port).collect()
}

/// Ends a session of serial over LAN that somebody has, or that was left behind.
///
/// # Errors
/// It does not answer.
pub(super) fn end_console(access: &Access, exchange: Duration) -> Result<()> {
    let ended = program::run(ipmitool(access).args(["sol", "deactivate"]), exchange);
    // That there is no session is as good.
    ended.map(drop).with_context(|| format!("ending the console session at {}", access.place()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_sensors_are_found() {
        let said = "Device ID                 : 32\nFirmware Revision         : 9.08\nManufacturer Name         : Unknown (0x1291)\nEmpty :\n";
        assert_eq!(field(said, &["Empty", "Firmware Revision"]).as_deref(), Some("9.08"));
        assert_eq!(field(said, &["Product Serial"]), None);
        let listed = sensors("Inlet Temp,23,degrees C,ok\nFan1,disabled,,ns\nCurrent 1,0.40,Amps,ok\nbroken\n");
        let inlet = Sensor { name: "Inlet Temp".into(), reading: "23 degrees C".into(), status: "ok".into() };
        assert_eq!((listed.len(), &listed[0], listed[1].reading.as_str()), (2, &inlet, "0.40 Amps"));
    }

    #[test]
    fn dells_ports_are_found() {
        let said = "\nSystem LOMs\nNIC Number\tMAC Address\t\tStatus\n\n0\t\t18:66:DA:AA:BB:CC\tEnabled\n\
                    1\t\t18:66:da:aa:bb:cd\tEnabled\n\niDRAC8 MAC Address 18:66:da:aa:bb:c0\n";
        let ports = dell_ports(said);
        assert_eq!(ports.len(), 2, "{ports:?}");
        assert_eq!((ports[0].name.as_str(), ports[0].mac.as_str()), ("NIC 0", "18:66:da:aa:bb:cc"));
    }

    #[test]
    fn what_ipmitool_says_is_understood() {
        let end = "Error: Unable to establish IPMI v2 / RMCP+ session\n";
        for (said, trouble) in [
            ("> RAKP 2 HMAC is invalid\n", Trouble::Password),
            ("RAKP 2 message indicates an error : unauthorized name\n", Trouble::User),
            ("Get Auth Capabilities error\n", Trouble::Silent),
        ] {
            assert_eq!(Trouble::of(&format!("{said}{end}")), trouble);
        }
        assert_eq!(Trouble::of("Set Chassis Power Control to Up/On failed: Node busy"), Trouble::Other);
    }
}
