//! A site: the folder that one cluster's master works from, and its site.toml.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rootstream::cmdline;
use rootstream::failure::{Advise, refuse};
use serde::Deserialize;
use toml::Spanned;

use super::Document;
use super::addresses::{AddressRange, Cidr, Domain, LeaseTime, Name, Prefix64};
use super::facts::Named;
use super::groups::{Groups, Sections};
use super::nodes::{Access, BootPath, Node};

/// The folder in the store where overlays are; no image can have that name.
pub const OVERLAYS: &str = "overlays";

/// A site's folder and configuration.
#[derive(Clone, Debug)]
pub struct Site {
    root: PathBuf,
    config: Config,
}

/// site.toml.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[network]`: the boot network and what DHCP says about it.
    pub network: Network,
    /// `[http]`
    #[serde(default)]
    pub http: Http,
    /// `[defaults]`: for nodes that say nothing else.
    #[serde(default)]
    pub defaults: Defaults,
    /// `[facts]`: what templates in overlays may use, for every node.
    #[serde(default)]
    pub facts: Named,
    /// `[bmc]`: what the nodes' BMCs have in common.
    #[serde(default)]
    pub bmc: Access,
    /// Every `[group.NAME]` of site.toml; nodes.toml may have more.
    #[serde(skip)]
    pub groups: Groups,
    #[serde(default, rename = "group")]
    sections: Sections,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    interface: Spanned<String>,
    /// The master's own address on it, with the prefix length.
    pub address: Cidr,
    range: Option<Spanned<AddressRange>>,
    gateway: Option<Spanned<Ipv4Addr>>,
    /// Name servers (option 6). With the master's own address among them, dnsmasq answers DNS for the nodes' names.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    pub domain: Option<Domain>,
    /// How long a lease lasts.
    #[serde(default)]
    pub lease: LeaseTime,
    /// Announced by router advertisements: some boot ROMs wait long for one.
    pub ipv6_prefix: Option<Prefix64>,
}

impl Network {
    /// The port of the master that the nodes are on.
    pub fn interface(&self) -> &str {
        self.interface.get_ref()
    }

    /// Addresses for machines that no node entry names; none are served when absent.
    pub fn range(&self) -> Option<AddressRange> {
        self.range.as_ref().map(|r| *r.get_ref())
    }

    /// The nodes' router (option 3).
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway.as_ref().map(|g| *g.get_ref())
    }
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The port that images are served on.
    #[serde(default = "port_80")]
    pub port: u16,
}

impl Default for Http {
    fn default() -> Self {
        Self { port: port_80() }
    }
}

fn port_80() -> u16 {
    80
}

/// `[defaults]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The image of nodes that name none, and of machines that are no known node.
    pub image: Option<Name>,
    /// The overlays of nodes that name none, in order.
    #[serde(default)]
    pub overlays: Vec<Name>,
    /// The way from the firmware to the kernel; it follows from the firmware when absent.
    pub boot: Option<BootPath>,
    parameters: Option<Spanned<String>>,
}

impl Defaults {
    /// Kernel parameters for every node.
    pub fn parameters(&self) -> &str {
        self.parameters.as_ref().map_or("", |p| p.get_ref())
    }
}

impl Site {
    /// Opens the site in the folder `root`.
    ///
    /// # Errors
    /// No site.toml there, or a mistake in it ([`super::Misconfigured`]).
    pub fn open(root: &Path) -> Result<Self> {
        let file = root.join("site.toml");
        if !file.exists() {
            return Err(refuse(
                format!("{} is no site: it holds no site.toml", root.display()),
                "name a site with --site DIR or ROOTSTREAM_SITE, or make one: rootstream site new DIR --interface br0 --address 172.16.0.254/24",
            ));
        }
        let config = Config::read(&Document::read(&file)?)?;
        let root = root.canonicalize().with_context(|| format!("resolving {}", root.display()))?;
        Ok(Self { root, config })
    }

    /// The way from the firmware to the kernel of `node`, or of a machine that no node entry names, as the node, its
    /// groups or the site's defaults say; nothing where none of them does.
    pub fn boot_path(&self, node: Option<&Node>) -> Option<BootPath> {
        node.and_then(|node| node.boot).or(self.config.defaults.boot)
    }

    /// What site.toml says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The list of nodes.
    pub fn nodes_file(&self) -> PathBuf {
        self.root.join("nodes.toml")
    }

    /// The recipe of the image `name`.
    pub fn recipe_file(&self, name: &Name) -> PathBuf {
        self.root.join("images").join(format!("{name}.toml"))
    }

    /// Where built, not yet published images are.
    pub fn built(&self) -> PathBuf {
        self.root.join("built")
    }

    /// Published images; served as `/images/`.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The files of the overlay `name`.
    pub fn overlay_folder(&self, name: &Name) -> PathBuf {
        self.root.join("overlays").join(name.as_str())
    }

    /// Published overlays; served as `/overlays/`.
    pub fn overlay_store(&self) -> PathBuf {
        self.store().join(OVERLAYS)
    }

    /// Boot files; the root of TFTP, and served as `/boot/`.
    pub fn tftp(&self) -> PathBuf {
        self.root.join("tftp")
    }

    /// Makes the folder `name` of the site where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder).advise(
            format!("making the folder {}", folder.display()),
            "make the site writable for the user that runs this, or run it as root",
        )?;
        Ok(folder)
    }
}

impl Config {
    /// Whether servers that were started with `other` do what this one says of them.
    pub fn serves_as(&self, other: &Self) -> bool {
        self.network == other.network && self.http == other.http
    }

    /// Reads and checks site.toml.
    ///
    /// # Errors
    /// [`super::Misconfigured`], naming the line.
    pub fn read(document: &Document) -> Result<Self> {
        let mut config: Self = document.parse()?;
        config.groups = Groups::default().with(document, &config.sections)?;
        config.bmc.check(document)?;
        let network = &config.network;
        let name = network.interface();
        // What the kernel takes for a port's name, and nothing that could end a line of a written configuration.
        if name.is_empty() || name.len() > 15 || name.chars().any(|c| c == '/' || c == ',' || !c.is_ascii_graphic()) {
            return Err(document.refuse(network.interface.span(), format!("`{name}` is no network interface")));
        }
        let outside = |address| format!("{address} is outside the network of {}", network.address);
        if let Some(range) = &network.range {
            for end in [range.get_ref().first, range.get_ref().last] {
                if !network.address.holds(end) {
                    return Err(document.refuse(range.span(), outside(end)));
                }
            }
            if range.get_ref().holds(network.address.address) {
                let what = format!("the range holds {}, the master's own address", network.address.address);
                return Err(document.refuse(range.span(), what));
            }
        }
        if let Some(gateway) = &network.gateway
            && !network.address.holds(*gateway.get_ref())
        {
            return Err(document.refuse(gateway.span(), outside(*gateway.get_ref())));
        }
        if let (Some(gateway), Some(range)) = (&network.gateway, network.range())
            && range.holds(*gateway.get_ref())
        {
            let what = format!("the gateway {} is inside the range {range} for other machines", gateway.get_ref());
            return Err(document.refuse(gateway.span(), what));
        }
        if let Some(parameters) = &config.defaults.parameters {
            check_parameters(document, parameters)?;
        }
        Ok(config)
    }
}

/// Refuses kernel parameters that a boot menu's one line cannot hold, or that the agent would not understand: here
/// a typo costs a moment, on the node a boot.
pub(super) fn check_parameters(document: &Document, parameters: &Spanned<String>) -> Result<()> {
    let line = parameters.get_ref();
    if line.chars().any(char::is_control) {
        return Err(document.refuse(parameters.span(), "kernel parameters must be one line without control characters"));
    }
    // What the boot menus add; a line with an image of its own names it after this one.
    let parsed = cmdline::parse(&format!("rootstream.image=http://master/images/image/build.json {line}"));
    let wrong: Vec<String> = parsed.mistakes.into_iter().chain(parsed.warnings).collect();
    if !wrong.is_empty() {
        return Err(document.refuse(parameters.span(), format!("kernel parameters: {}", wrong.join("; "))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[network]\ninterface = 'br0'\naddress = '172.16.0.254/24'\n";

    fn read(text: &str) -> Result<Config> {
        Config::read(&Document::of("site.toml", text))
    }

    #[test]
    fn a_short_site_is_enough() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.http.port, 80);
        assert_eq!(config.network.lease.to_string(), "1h".parse::<LeaseTime>().unwrap().to_string());
        assert!(config.network.range().is_none());
    }

    // M15
    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (added, message) in [
            ("range = '10.0.0.1-10.0.0.9'\n", "site.toml:4: 10.0.0.1 is outside the network of 172.16.0.254/24"),
            ("# x\ngateway = '172.16.1.1'\n", "site.toml:5: 172.16.1.1 is outside the network of 172.16.0.254/24"),
            ("gatway = '172.16.0.1'\n", "site.toml:4: unknown field `gatway`"),
            ("lease = '5s'\n", "site.toml:4: `5s` is no lease time"),
            ("[facts]\nrack = 1\n", "site.toml:5: invalid type: integer"),
            ("[facts]\nmac = 'x'\n", "site.toml:5: the fact `mac` follows from the rest"),
            ("[facts]\nRack = 'x'\n", "site.toml:5: `Rack` is no name of a fact"),
            ("[defaults]\noverlays = ['a b']\n", "site.toml:5: `a b` is no name"),
            ("range = '172.16.0.250-172.16.0.254'\n", "site.toml:4: the range holds 172.16.0.254, the master's own"),
            (
                "range = '172.16.0.2-172.16.0.9'\ngateway = '172.16.0.3'\n",
                "site.toml:5: the gateway 172.16.0.3 is inside the range 172.16.0.2-172.16.0.9",
            ),
            ("[group.a]\n[group.A]\n", "site.toml:4: there is a group A already (line 5)"),
            ("[group.all]\n", "site.toml:4: @all is every node"),
            ("[group.a]\nparameters = 'rootstream.stal=1s'\n", "site.toml:5: kernel parameters: unknown parameter"),
            ("[group.a]\nboot = 'lilo'\n", "site.toml:5: `lilo` is no boot path; there are pxelinux, ipxe"),
            ("[bmc]\npassword = 'x'\n", "site.toml:5: a password does not belong into this file"),
            ("[group.a.bmc]\ncipher = 20\n", "site.toml:5: IPMI's cipher suites are 0 to 19"),
            ("[htp]\n", "site.toml:4: unknown field `htp`"),
            (
                "[defaults]\nparameters = 'quiet rootstream.retri=5m rootstream.stall=x'\n",
                "site.toml:5: kernel parameters: rootstream.stall=x: ",
            ),
            (
                "[defaults]\nparameters = 'rootstream.retri=5m'\n",
                "site.toml:5: kernel parameters: unknown parameter rootstream.retri is ignored; did you mean rootstream.retry?",
            ),
            ("[defaults]\nparameters = \"a\\nb\"\n", "site.toml:5: kernel parameters must be one line"),
        ] {
            let error = read(&format!("{GOOD}{added}")).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let error = read("[network]\ninterface = 'br0\\n'\naddress='x'").unwrap_err().to_string();
        assert!(error.starts_with("site.toml:3: `x` is no address"), "{error}");
        let error = read("[network]\ninterface = \"a b\"\naddress='10.0.0.1/8'").unwrap_err().to_string();
        assert!(error.starts_with("site.toml:2: `a b` is no network interface"), "{error}");
    }
}
