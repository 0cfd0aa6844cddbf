//! docs/PERFORMANCE.md: every figure in it comes from the runs that it is written after.

use crate::comparison::Comparison;
use crate::machine::Fact;
use crate::tables::{self, table};
use crate::targets::{self, Target, verification};
use crate::ways::Packing;

const MIB: f64 = 1024.0 * 1024.0;

/// What is on the page.
#[derive(Debug)]
pub struct Page {
    /// The machine and the programs.
    pub facts: Vec<Fact>,
    /// Each image's runs, with the seconds that the sha256 of its published zstd file takes.
    pub comparisons: Vec<(Comparison, f64)>,
    /// Targets for sizes.
    pub sizes: Vec<Target>,
}

impl Page {
    /// The page as Markdown.
    pub fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        let facts: Vec<Vec<String>> =
            self.facts.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
        text += &table(&["", ""], &facts);
        for (comparison, digest) in &self.comparisons {
            text += &section(comparison, *digest);
        }
        text += "\n## What a node loads before the image\n\n";
        text += &tables::targets(&self.sizes);
        text += TAIL;
        text
    }
}

fn section(comparison: &Comparison, digest: f64) -> String {
    let image = &comparison.image;
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / MIB);
    let packed: Vec<String> =
        image.files.iter().map(|packed| format!("{} {}", label(packed.packing), mib(packed.size))).collect();
    let mut text = format!(
        "\n## The image `{}`\n\n{} entries, {} unpacked; {}. Medians of {} rounds.\n\n",
        image.name,
        image.entries,
        mib(image.bytes),
        packed.join(", "),
        comparison.rounds()
    );
    text += &tables::ways(comparison);
    text += "\n";
    text += &tables::targets(&targets::of_comparison(comparison, digest));
    text += &format!(
        "\nThe sha256 of the published zstd file takes {digest:.3} s of one core, {:.1} % of the time of two workers.\n",
        verification(comparison, digest)
    );
    text
}

fn label(packing: Packing) -> &'static str {
    match packing {
        Packing::Gzip => "`gzip -6`",
        Packing::Zstd => "`zstd -3`",
        Packing::PublishedGzip => "published gzip",
        Packing::PublishedZstd => "published zstd",
    }
}

const HEAD: &str = "\
# Performance

`make bench` wrote this page: the agent beside the programs that clusters fetch images with today. To repeat it:
`make bench`, or `make bench RUNS=9 IMAGES=compute`; it needs root, for namespaces of its own.

- Each way brings the same image from nginx on loopback, which shares the processor, into a fresh tmpfs. The agent runs as
  `init rehearse`, the code that a node boots with; decoding, digests (no signature), owners, modes, times and extended attributes
  included. After each run the tree's entries are counted.
- The ways take turns, each before other work on the machine as far as the kernel lets it (sched(7), autogroups). Ratios
  are medians of each round's own ratio, so that a machine that is slow for a while is slow for both sides. CPU seconds are
  user and system time of all of a way's processes, without nginx.
- Memory is the peak of a way's largest process beside the image; for the agent, its only one. A way that stores the packed file
  first needs memory for that too.
- Around the image is what a run of the agent takes besides fetching and unpacking: starting, parameters, checks. A node's
  DHCP, modules and waits for a link are not in it.
- A published image is what `rootstream image publish` makes: independent chunks, each verified before it is decoded.
  Workers are the threads that do so; a node has one for each processor, up to 8.

## The machine

";

const TAIL: &str = "
The initramfs holds the agent, the list of modules that the kernel has built in, and no module; compressed as the kernel
can unpack it.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_is_not_met() {
        let missed = Target { what: "w".to_owned(), wanted: "≥ 2".to_owned(), measured: "1".to_owned(), met: false };
        let page = Page { facts: vec![("kernel", "6.1".to_owned())], comparisons: Vec::new(), sizes: vec![missed] };
        let text = page.text();
        assert!(text.contains("| kernel | 6.1 |") && text.contains("| w | ≥ 2 | 1 | **not met** |"), "{text}");
    }
}
