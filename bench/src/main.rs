//! `bench INIT TAR [RUNS]`: one image, from nginx into a fresh tmpfs, by the agent and by the pipelines that
//! it replaces, in turn. Prints medians and the ratio of each pipeline to the agent, run by run.
//!
//! Everything happens in network and mount namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rootstream_lab::bound::Bound;
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::packages::{build_dir, unpacked};

mod measure;

use measure::{Run, measure, median};

const ADDRESS: &str = "127.0.0.1:8080";

/// One way to bring an image into a folder.
struct Way {
    name: &'static str,
    /// The compressed file that it fetches.
    file: &'static str,
    /// The shell command; `$URL` and `$ROOT` are set, and `$INIT`.
    command: &'static str,
    /// Name of the way of the agent's that it is compared with.
    against: &'static str,
}

const REHEARSE: &str = r#"exec "$INIT" rehearse --root "$ROOT" --cmdline "rootstream.image=$URL""#;
const WAYS: [Way; 4] = [
    Way { name: "rehearse .tar.gz", file: "image.tar.gz", command: REHEARSE, against: "rehearse .tar.gz" },
    Way {
        name: "curl | gzip -d | tar x",
        file: "image.tar.gz",
        command: r#"curl -sS "$URL" | gzip -d | tar x -C "$ROOT" --numeric-owner --xattrs --xattrs-include='*'"#,
        against: "rehearse .tar.gz",
    },
    Way { name: "rehearse .tar.zst", file: "image.tar.zst", command: REHEARSE, against: "rehearse .tar.zst" },
    Way {
        name: "curl | zstd -d | tar x",
        file: "image.tar.zst",
        command: r#"curl -sS "$URL" | zstd -dc | tar x -C "$ROOT" --numeric-owner --xattrs --xattrs-include='*'"#,
        against: "rehearse .tar.zst",
    },
];

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [init, tar, runs @ ..] = arguments.as_slice() else { anyhow::bail!("usage: bench INIT TAR [RUNS]") };
    let runs: usize = runs.first().map_or(Ok(5), |runs| runs.parse()).context("RUNS is not a number")?;
    let init = fs::canonicalize(init).with_context(|| format!("finding {init}"))?;
    let folder = build_dir().join("bench");
    compress(Path::new(tar), &folder)?;
    let nginx = unpacked("nginx")?.join("usr/sbin/nginx");

    enter_private_network()?;
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (it needs root)")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making mounts private")?;
    let _server = serve(&nginx, &folder)?;

    let mut results: Vec<Vec<Run>> = WAYS.iter().map(|_| Vec::new()).collect();
    // The first round only warms the caches.
    for round in 0..=runs {
        for (way, results) in WAYS.iter().zip(&mut results) {
            let run = run(way, &init, &folder)?;
            if round > 0 {
                results.push(run);
            }
        }
    }
    report(&results);
    Ok(())
}

/// The image as gzip -6 and zstd -3 make it, once.
fn compress(tar: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for (program, level, suffix) in [("gzip", "-6", "gz"), ("zstd", "-3", "zst")] {
        let target = folder.join(format!("image.tar.{suffix}"));
        let newer = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if newer(&target) > newer(tar) {
            continue;
        }
        let input = fs::File::open(tar).with_context(|| format!("opening {} (make site makes it)", tar.display()))?;
        let output = fs::File::create(&target).with_context(|| format!("creating {}", target.display()))?;
        let status = Command::new(program).args([level, "-c"]).stdin(input).stdout(output).status();
        ensure!(status.with_context(|| format!("starting {program}"))?.success(), "{program} failed");
    }
    Ok(())
}

fn serve(nginx: &Path, folder: &Path) -> Result<Bound> {
    let configuration = folder.join("nginx.conf");
    // One process: a worker would outlive a master that is killed.
    // It makes these folders even where it never uses them, below /var unless told.
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/nginx-{kind};", folder.display()))
        .join(" ");
    let text = format!(
        "daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/error.log;\n\
         events {{ }}\nhttp {{ sendfile on; access_log off; {temporary} server {{ listen {ADDRESS}; root {0}; }} }}\n",
        folder.display()
    );
    fs::write(&configuration, text).with_context(|| format!("writing {}", configuration.display()))?;
    let server = Bound::start(&nginx.to_string_lossy(), |command| {
        command.arg("-c").arg(&configuration).arg("-e").arg(folder.join("error.log"))
    })?;
    for _ in 0..100 {
        if std::net::TcpStream::connect(ADDRESS).is_ok() {
            return Ok(server);
        }
        sleep(Duration::from_millis(50));
    }
    anyhow::bail!("nginx does not answer on {ADDRESS}; see {}/error.log", folder.display())
}

/// One run into a tmpfs of its own.
fn run(way: &Way, init: &Path, folder: &Path) -> Result<Run> {
    let root: PathBuf = folder.join("root");
    fs::create_dir_all(&root).context("making the folder of the tmpfs")?;
    mount(Some("bench"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=80%")).context("mounting a tmpfs")?;
    let mut command = Command::new("bash");
    command.args(["-e", "-o", "pipefail", "-c", way.command]);
    command.env("URL", format!("http://{ADDRESS}/{}", way.file)).env("ROOT", &root).env("INIT", init);
    let run = measure(&mut command).with_context(|| way.name)?;
    nix::mount::umount(&root).context("unmounting the tmpfs")?;
    Ok(run)
}

fn report(results: &[Vec<Run>]) {
    println!("| way | wall s | CPU s | peak KiB | times the agent's wall time |\n|---|---|---|---|---|");
    for (way, runs) in WAYS.iter().zip(results) {
        let Some(agent) = WAYS.iter().position(|other| other.name == way.against).and_then(|at| results.get(at)) else {
            continue;
        };
        let ratios = runs.iter().zip(agent).map(|(run, agent)| run.wall / agent.wall);
        let peak = median(runs.iter().map(|run| run.peak_kib));
        println!(
            "| {} | {:.2} | {:.2} | {} | {:.2} |",
            way.name.replace('|', "\\|"),
            median(runs.iter().map(|run| run.wall)),
            median(runs.iter().map(|run| run.cpu)),
            // The peak of a pipeline's shell says nothing.
            if way.name == way.against { format!("{peak:.0}") } else { "-".to_owned() },
            median(ratios),
        );
    }
    println!(
        "\nmedians of {} interleaved runs; ratios are medians of the runs' own",
        results.first().map_or(0, Vec::len)
    );
}
