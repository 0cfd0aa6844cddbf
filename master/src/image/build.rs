//! A Debian image out of its recipe, by mmdebstrap.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};
use rootstream::image::hex;
use sha2::{Digest, Sha256};

use super::built::{Made, Record};
use super::overlay;
use crate::aside;
use crate::config::addresses::Name;
use crate::config::recipe::Recipe;
use crate::config::site::Site;
use crate::progress::Progress;
use crate::say;

/// What a build may do beyond the ordinary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Build though nothing changed.
    pub force: bool,
    /// Accept an image that holds secrets.
    pub allow_secrets: bool,
}

/// What shrinks an image and no node misses.
const LEFT_OUT: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
];

/// Takes out what belongs to the machine that built, or what each node makes for itself. The
/// kernel's own initramfs goes too: nodes boot from rootstream's.
const CLEAN: &str = r#"set -e
rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/ssh/ssh_host_*_key "$1"/etc/ssh/ssh_host_*_key.pub
rm -f "$1"/boot/initrd.img-* "$1"/initrd.img "$1"/initrd.img.old "$1"/vmlinuz.old
: > "$1"/etc/machine-id"#;

/// Builds the image `name`, unless what was built already came from the same inputs.
///
/// # Errors
/// The recipe is wrong, mmdebstrap fails (its last lines are part of the error), or the image holds
/// secrets.
pub fn build(site: &Site, name: &Name, options: Options) -> Result<()> {
    let (recipe, document) = Recipe::of(site, name)?;
    let built = site.folder("built")?;
    // Held to the end.
    let _claim = aside::claim(&built)?;
    let archive = built.join(format!("{name}.tar"));
    let record_file = built.join(format!("{name}.json"));
    let site_part = overlay::archive(site, &recipe)?;
    // With names that are always the same, so that only what a build is told makes another image.
    let told = words(&command(&recipe, Path::new("site.tar"), Path::new("image.tar")));
    let inputs = digest(&[document.text().as_bytes(), &site_part, &told]);
    if !options.force && is_current(&record_file, &archive, &inputs) {
        say::note(format_args!("image {name}: built already from the same recipe and files (--force builds again)"));
        return Ok(());
    }
    if recipe.ssh_authorized_keys.is_empty() {
        log::warn!("{}: no ssh_authorized_keys: nobody can log in over ssh", document.path().display());
    }

    let progress = Progress::spinner(format!("image {name}"));
    let fresh = aside::begin(&archive)?;
    let folder = tempfile::tempdir().context("making a folder for the site's files")?;
    let overlay_file = folder.path().join("site.tar");
    fs::write(&overlay_file, site_part).context("writing the site's files")?;
    let log = site.folder("log")?.join(format!("build-{name}.log"));
    run(command(&recipe, &overlay_file, fresh.path()), &log, &progress)
        .with_context(|| format!("building the image {name}"))?;
    let made = Made { archive: fresh, inputs, arch: recipe.arch().to_owned() };
    made.take_its_place(site, name, options.allow_secrets, progress)
}

pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

fn is_current(record: &Path, archive: &Path, inputs: &str) -> bool {
    let record: Option<Record> = fs::read(record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let bytes = fs::metadata(archive).ok().map(|m| m.len());
    record.is_some_and(|record| record.inputs == inputs && bytes == Some(record.bytes))
}

/// mmdebstrap, told everything about the image.
fn command(recipe: &Recipe, overlay: &Path, output: &Path) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=auto", "--variant=minbase", "--format=tar"]);
    command.arg(format!("--architectures={}", recipe.arch()));
    let packages: Vec<_> = recipe.packages().collect();
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    command.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
    command.arg(format!("--customize-hook={CLEAN}"));
    command.arg(format!("--customize-hook=tar-in {} /", quoted(overlay)));
    let services: Vec<_> = recipe.services().collect();
    if !services.is_empty() {
        command.arg(format!("--customize-hook=chroot \"$1\" systemctl enable {}", services.join(" ")));
    }
    command.arg(recipe.suite()).arg(output).args(recipe.sources());
    // Debian's kernel packages make no initramfs then; ours is made by `bootstrap`.
    command.env("INITRD", "No");
    command
}

/// All words of a command and its additions to the environment, each ended by a NUL.
fn words(command: &Command) -> Vec<u8> {
    let environment = command.get_envs().flat_map(|(name, value)| [Some(name), value]).flatten();
    let words = command.get_args().chain(environment);
    words.flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
}

/// Runs a command of mmdebstrap, which says its steps on stderr.
fn run(mut command: Command, log: &Path, progress: &Progress) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().advise("starting mmdebstrap", "install it: apt-get install mmdebstrap")?;
    let mut log_file = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let mut last = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.context("reading what mmdebstrap says")?;
            let line = String::from_utf8_lossy(&line);
            writeln!(log_file, "{line}").with_context(|| format!("writing {}", log.display()))?;
            if let Some(step) = line.strip_prefix("I: ") {
                progress.step(shown(step));
            } else if !line.trim().is_empty() {
                last.push(line.trim().to_owned());
            }
        }
    }
    let status = child.wait().context("waiting for mmdebstrap")?;
    if !status.success() {
        let from = last.len().saturating_sub(8);
        let said = last.get(from..).unwrap_or_default().join(" | ");
        return Err(refuse(
            format!("mmdebstrap: {status}: {said}"),
            format!("look at the recipe and at the whole log, {}", log.display()),
        ));
    }
    Ok(())
}

/// A step of mmdebstrap in a few words; it prints our hooks in full.
fn shown(step: &str) -> &str {
    if step.starts_with("running --customize-hook") || step.starts_with("running special hook") {
        "putting in the site's part"
    } else {
        step.trim_end_matches('.')
    }
}

/// One word for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    #[test]
    fn parts_cannot_run_into_each_other() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    #[test]
    fn whatever_mmdebstrap_is_told_makes_another_image() {
        let document =
            Document::of("c.toml", "suite = 'bookworm'\npackages = ['udev']\nservices = ['ssh']\n".to_owned());
        let recipe = Recipe::read(&document).unwrap();
        let told = || command(&recipe, Path::new("site.tar"), Path::new("image.tar"));
        let same = words(&told());
        assert_eq!(same, words(&told()));
        let text = String::from_utf8_lossy(&same);
        for word in ["--variant=", "--aptopt=", "--dpkgopt=path-exclude", "--customize-hook=", "INITRD\0No\0"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let (mut option, mut variable, mut split) = (told(), told(), told());
        assert_ne!(words(option.arg("--verbose")), same);
        assert_ne!(words(variable.env("LANG", "C")), same);
        assert_ne!(words(split.args(["a", "b"])), words(told().arg("ab")));
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
