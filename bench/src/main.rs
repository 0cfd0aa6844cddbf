//! `bench`: runs the comparison and writes docs/PERFORMANCE.md.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rootstream_bench::comparison::{Comparison, enclose};
use rootstream_bench::images::Workshop;
use rootstream_bench::page::Page;
use rootstream_bench::sizes::{Sizes, digest_seconds};
use rootstream_bench::ways::Packing;
use rootstream_bench::{machine, targets};
use rootstream_lab::packages::build_dir;

/// The agent beside the programs that it replaces.
#[derive(Debug, Parser)]
struct Arguments {
    /// The agent's binary.
    #[arg(long, default_value = "target/x86_64-unknown-linux-musl/release/init")]
    init: PathBuf,
    /// How often each way runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The images: the lab's own, and one of 1 GiB.
    #[arg(long, value_delimiter = ',', default_values = ["compute", "large"])]
    images: Vec<ImageName>,
    /// Where the page goes.
    #[arg(long, default_value = "docs/PERFORMANCE.md")]
    page: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ImageName {
    Compute,
    Large,
}

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let init = std::path::absolute(&arguments.init).context("naming the agent's binary")?;
    let own = std::env::current_exe().context("asking for this program's path")?;
    let workshop = Workshop::open(&build_dir().join("bench"), &own.with_file_name("rootstream"))?;
    let mut images = Vec::new();
    for name in &arguments.images {
        let built = match name {
            ImageName::Compute => workshop.adopt(&build_dir().join("lab/site"), "compute")?,
            ImageName::Large => workshop.build_large()?,
        };
        images.push(workshop.pack(&built)?);
    }
    let first = images.first().context("no image was asked for")?;
    let sizes = Sizes::of(&workshop, &first.name, &init)?;
    let mut facts = machine::machine();
    facts.extend(machine::programs());
    enclose()?;
    let mut comparisons = Vec::new();
    for image in &images {
        eprintln!("bench: {}, {} rounds", image.name, arguments.runs);
        let digest = digest_seconds(&image.packed(Packing::PublishedZstd)?.file)?;
        comparisons.push((Comparison::of(image, &init, workshop.folder(), arguments.runs, true)?, digest));
    }
    let page = Page { facts, comparisons, sizes: targets::of_sizes(sizes) }.text();
    println!("{page}");
    write(&arguments.page, &page)?;
    let lines = || page.lines().filter(|line| line.starts_with('|'));
    let missed = lines().filter(|line| line.ends_with("| **not met** |")).count();
    let met = lines().filter(|line| line.ends_with("| met |")).count();
    println!("bench: {met} of {} targets met", met + missed);
    Ok(())
}

fn write(path: &Path, page: &str) -> Result<()> {
    std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))
}
