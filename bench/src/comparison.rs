//! One image by every way, in turn, again and again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::packages::unpacked;

use crate::images::Image;
use crate::measure::{Run, measure};
use crate::server::{ADDRESS, serve};
use crate::stats::median;
use crate::ways::{WAYS, Way};

/// The runs of one image: as many of each way, in the order of [`WAYS`].
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The image.
    pub image: Image,
    runs: Vec<Vec<Run>>,
}

/// Moves the calling thread into namespaces of its own, where only loopback is reachable and mounts are private. What has
/// to be downloaded for the server is downloaded before.
///
/// # Errors
/// It needs root, or the package of the server cannot be had.
pub fn enclose() -> Result<()> {
    unpacked("nginx")?;
    enter_private_network()?;
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (it needs root)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making mounts private")
}

impl Comparison {
    /// Runs every way `runs` times, the ways in turn, from a server on `folder`; `warm` adds a round before that only
    /// fills caches.
    ///
    /// # Errors
    /// A way fails, or leaves a tree without all of the image's entries.
    pub fn of(image: &Image, init: &Path, folder: &Path, runs: usize, warm: bool) -> Result<Self> {
        let scratch = tempfile::tempdir().context("making a folder")?;
        let root = scratch.path().join("root");
        fs::create_dir(&root).context("making a mount point")?;
        let _server = serve(folder, scratch.path())?;
        let mut comparison = Self { image: image.clone(), runs: WAYS.iter().map(|_| Vec::new()).collect() };
        for round in 0..runs + usize::from(warm) {
            for (way, taken) in WAYS.iter().zip(&mut comparison.runs) {
                let run = run(way, image, init, &root).with_context(|| format!("{} by {}", image.name, way.name))?;
                if round >= usize::from(warm) {
                    taken.push(run);
                }
            }
        }
        Ok(comparison)
    }

    /// How often each way ran.
    pub fn rounds(&self) -> usize {
        self.runs.first().map_or(0, Vec::len)
    }

    fn of_way(&self, name: &str) -> &[Run] {
        let runs = WAYS.iter().zip(&self.runs).find(|(way, _)| way.name == name);
        runs.map(|(_, runs)| runs.as_slice()).unwrap_or_default()
    }

    /// The median of what a way's runs took.
    pub fn median(&self, name: &str, what: impl Fn(&Run) -> f64) -> f64 {
        median(self.of_way(name).iter().map(what))
    }

    /// How many times as fast one way is as another: the median of the rounds' own ratios.
    pub fn speedup(&self, name: &str, against: &str) -> f64 {
        median(self.of_way(name).iter().zip(self.of_way(against)).map(|(run, other)| other.wall / run.wall))
    }
}

/// Seconds of an agent's run outside its image step, by the record that it printed.
pub fn around_the_image(run: &Run) -> Option<f64> {
    let record: serde_json::Value = serde_json::from_str(&run.printed).ok()?;
    let steps = record.get("steps")?.as_array()?;
    let image = steps.iter().find(|step| step.get("name").is_some_and(|name| name == "image"))?;
    Some(run.wall - image.get("seconds")?.as_f64()?)
}

/// One run into a tmpfs of its own.
fn run(way: &Way, image: &Image, init: &Path, root: &Path) -> Result<Run> {
    let url = format!("http://{ADDRESS}/{}", image.packed(way.packing)?.path);
    mount(Some("bench"), root, Some("tmpfs"), MsFlags::empty(), Some("size=80%")).context("mounting a tmpfs")?;
    let (init, place) = (init.to_string_lossy(), root.to_string_lossy());
    let run = measure(way.command, &[("URL", url.as_str()), ("ROOT", &place), ("INIT", &init)]);
    let found = count(root);
    umount(root).context("unmounting the tmpfs")?;
    let (run, found) = (run?, found.context("counting what came out")?);
    ensure!(found == image.entries, "{found} entries came out, not {}", image.entries);
    Ok(run)
}

/// What is below a folder.
fn count(folder: &Path) -> std::io::Result<usize> {
    let mut found = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            found += 1;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_image_is_the_rest_of_the_run() {
        let printed = r#"{"steps":[{"name":"network","seconds":9},{"name":"image","seconds":1.5}]}"#.to_owned();
        let run = Run { wall: 1.75, cpu: 0.0, peak_kib: 0.0, printed };
        assert_eq!(around_the_image(&run), Some(0.25));
        assert_eq!(around_the_image(&Run { printed: "{}".to_owned(), ..run }), None);
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        let run = |wall: f64| Run { wall, cpu: 0.0, peak_kib: 0.0, printed: String::new() };
        let image = Image { name: "c".to_owned(), bytes: 0, entries: 0, files: Vec::new() };
        // The machine was three times as slow in the last round.
        let fast = vec![run(1.0), run(1.0), run(3.0)];
        let slow = vec![run(4.0), run(4.0), run(12.0)];
        let comparison = Comparison { image, runs: vec![fast, slow] };
        let [one, other, ..] = WAYS;
        assert_eq!(comparison.speedup(one.name, other.name), 4.0);
        assert_eq!(comparison.median(other.name, |run| run.wall), 4.0);
        assert_eq!(comparison.rounds(), 3);
    }
}
