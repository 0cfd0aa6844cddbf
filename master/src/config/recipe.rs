//! images/NAME.toml: what goes into an image.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use rootstream::failure::refuse;
use serde::Deserialize;
use toml::Spanned;

use super::Document;
use super::addresses::Name;
use super::site::Site;

const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// The suites that have no updates beside them.
const ROLLING: [&str; 4] = ["sid", "unstable", "testing", "experimental"];

/// A recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    suite: Spanned<String>,
    arch: Option<Spanned<String>>,
    mirror: Option<Spanned<String>>,
    security_mirror: Option<Spanned<String>>,
    packages: Vec<Spanned<String>>,
    /// Units that are enabled, by name.
    #[serde(default)]
    services: Vec<Spanned<String>>,
    /// Public key files, relative to the site, whose owners may log in as root.
    #[serde(default)]
    pub ssh_authorized_keys: Vec<PathBuf>,
    /// `dhcp`: the lease names the node; else this fixed name.
    #[serde(default)]
    pub hostname: Hostname,
    /// Files that are copied in.
    #[serde(default)]
    pub files: Vec<CopyIn>,
}

/// Who names the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Hostname {
    /// The DHCP lease.
    #[default]
    Dhcp,
    /// The image.
    Fixed(Name),
}

impl TryFrom<String> for Hostname {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "dhcp" { Ok(Self::Dhcp) } else { text.parse().map(Self::Fixed) }
    }
}

/// A file that is copied in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyIn {
    /// Relative to the site.
    pub from: PathBuf,
    /// Absolute, in the image.
    pub to: Target,
    /// Permissions; 0644 by default.
    #[serde(default)]
    pub mode: Mode,
    /// User and group; root by default.
    #[serde(default)]
    pub owner: Owner,
}

/// An absolute path in the image.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct Target(PathBuf);

impl Target {
    /// The path without its leading slash.
    pub fn relative(&self) -> &Path {
        self.0.strip_prefix("/").unwrap_or(&self.0)
    }
}

impl TryFrom<PathBuf> for Target {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        let mut parts = path.components();
        let rooted = parts.next() == Some(Component::RootDir);
        let mut parts = parts.peekable();
        if rooted && parts.peek().is_some() && parts.all(|p| matches!(p, Component::Normal(_))) {
            Ok(Self(path))
        } else {
            Err(format!("`{}` is no absolute path of a file in the image", path.display()))
        }
    }
}

/// Permission bits, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o644)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            _ => Err(format!("`{text}` are no octal permissions such as \"0644\"")),
        }
    }
}

/// Numeric owner: the names of the image's users are not known before it is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Owner {
    /// User number.
    pub user: u64,
    /// Group number.
    pub group: u64,
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "root" {
            return Ok(Self::default());
        }
        let number = |t: &str| t.parse::<u32>().ok().map(u64::from);
        match text.split_once(':').map(|(u, g)| (number(u), number(g))) {
            Some((Some(user), Some(group))) => Ok(Self { user, group }),
            _ => Err(format!("`{text}` is no owner: root, or user and group as numbers such as \"1000:1000\"")),
        }
    }
}

impl Recipe {
    /// Reads the recipe of the image `name`, and its text.
    ///
    /// # Errors
    /// It is missing, or holds a mistake ([`super::Misconfigured`], naming the line).
    pub fn of(site: &Site, name: &Name) -> Result<(Self, Document)> {
        let file = site.recipe_file(name);
        if !file.exists() {
            return Err(refuse(
                format!("there is no image {name}: {} is missing", file.display()),
                "write it like images/compute.toml, the example that `rootstream site new` makes",
            ));
        }
        let document = Document::read(&file)?;
        Ok((Self::read(&document)?, document))
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// [`super::Misconfigured`], naming the line.
    pub fn read(document: &Document) -> Result<Self> {
        let recipe: Self = document.parse()?;
        let words = recipe.packages.iter().chain(&recipe.services).chain([&recipe.suite]).chain(&recipe.arch);
        for word in words {
            // These become words of a command line: nothing that could be taken for an option or a list.
            let text = word.get_ref();
            let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
            if !first || !text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:@_=~/".contains(c)) {
                return Err(document.refuse(word.span(), format!("`{text}` is no name of a package, unit or suite")));
            }
        }
        let security = recipe.security_mirror.iter().filter(|m| !m.get_ref().is_empty());
        for mirror in recipe.mirror.iter().chain(security) {
            let url = mirror.get_ref();
            let known = ["http://", "https://", "file:", "copy:"].iter().any(|scheme| url.starts_with(scheme));
            if !known || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(document.refuse(mirror.span(), format!("`{url}` is no URL of a Debian mirror")));
            }
        }
        Ok(recipe)
    }

    /// Debian's release, such as `bookworm`.
    pub fn suite(&self) -> &str {
        self.suite.get_ref()
    }

    /// Debian's name of the architecture.
    pub fn arch(&self) -> &str {
        self.arch.as_ref().map_or("amd64", |a| a.get_ref())
    }

    /// Where packages come from, each a mirror's URL or a line of sources.list(5): the suite, and with
    /// it what Debian changed since its release. sid and testing change themselves.
    pub fn sources(&self) -> Vec<String> {
        let mirror = self.mirror.as_ref().map_or(MIRROR, |m| m.get_ref());
        let security = self.security_mirror.as_ref().map_or(SECURITY_MIRROR, |m| m.get_ref());
        let suite = self.suite();
        let mut sources = vec![mirror.to_owned()];
        if !security.is_empty() && !ROLLING.contains(&suite) {
            sources.push(format!("deb {mirror} {suite}-updates main"));
            sources.push(format!("deb {security} {suite}-security main"));
        }
        sources
    }

    /// Packages beyond the essential ones.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|p| p.get_ref().as_str())
    }

    /// Units to enable.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|p| p.get_ref().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recipe> {
        Recipe::read(&Document::of("images/c.toml", format!("suite = 'bookworm'\npackages = ['udev']\n{text}")))
    }

    #[test]
    fn defaults() {
        let recipe = read("[[files]]\nfrom = 'motd'\nto = '/etc/motd'\n").unwrap();
        assert_eq!(recipe.arch(), "amd64");
        assert_eq!(recipe.hostname, Hostname::Dhcp);
        assert_eq!(recipe.files[0].mode, Mode(0o644));
        assert_eq!(recipe.files[0].to.relative(), Path::new("etc/motd"));
    }

    #[test]
    fn a_release_comes_with_its_updates() {
        let sources = |text: &str| read(text).unwrap().sources();
        assert_eq!(
            sources(""),
            [
                "http://deb.debian.org/debian",
                "deb http://deb.debian.org/debian bookworm-updates main",
                "deb http://deb.debian.org/debian-security bookworm-security main",
            ]
        );
        assert_eq!(
            sources("mirror = 'http://m/d'\nsecurity_mirror = 'http://m/s'"),
            ["http://m/d", "deb http://m/d bookworm-updates main", "deb http://m/s bookworm-security main"]
        );
        assert_eq!(sources("mirror = 'http://m/d'\nsecurity_mirror = ''"), ["http://m/d"]);
        let rolling = Recipe::read(&Document::of("c.toml", "suite = 'sid'\npackages = []")).unwrap();
        assert_eq!(rolling.sources(), ["http://deb.debian.org/debian"]);
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, message) in [
            ("services = [\n 'ok',\n '--root=/x',\n]", "images/c.toml:5: `--root=/x` is no name"),
            ("mirror = 'deb.debian.org'", "images/c.toml:3: `deb.debian.org` is no URL"),
            ("security_mirror = 'security.debian.org'", "images/c.toml:3: `security.debian.org` is no URL"),
            ("hostname = 'a b'", "images/c.toml:3: `a b` is no name"),
            ("[[files]]\nfrom = 'a'\nto = '/a/../b'", "images/c.toml:5: `/a/../b` is no absolute path"),
            ("[[files]]\nfrom = 'a'\nto = '/'", "images/c.toml:5: `/` is no absolute path"),
            ("[[files]]\nfrom = 'a'\nto = '/a'\nmode = '9'", "images/c.toml:6: `9` are no octal permissions"),
            ("[[files]]\nfrom = 'a'\nto = '/a'\nowner = 'x:y'", "images/c.toml:6: `x:y` is no owner"),
            ("pakages = []", "images/c.toml:3: unknown field `pakages`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
