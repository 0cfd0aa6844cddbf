//! The ways to bring an image into a folder that are compared.

/// How the image is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// `gzip -6`: one stream.
    Gzip,
    /// `zstd -3`: one stream.
    Zstd,
    /// Published by the companion as chunks of gzip.
    PublishedGzip,
    /// Published by the companion as chunks of zstd.
    PublishedZstd,
}

/// One way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What the tables call it.
    pub name: &'static str,
    /// What it fetches.
    pub packing: Packing,
    /// A bash command; `$URL`, `$ROOT` (empty) and `$INIT` are set.
    pub command: &'static str,
    /// Whether it is the agent.
    pub agent: bool,
}

/// The classic load_img.sh.
pub const BUSYBOX: &str = "busybox wget, gunzip, tar";
/// What the others are compared with.
pub const GZIP: &str = "curl, gzip, GNU tar";
/// As Fedora CoreOS does it.
pub const BSDTAR: &str = "curl, bsdtar";
/// The same for zstd.
pub const ZSTD: &str = "curl, zstd, GNU tar";
/// The agent and a plain `.tar.gz`.
pub const PLAIN_GZIP: &str = "**rootstream, .tar.gz**";
/// The agent and a plain `.tar.zst`.
pub const PLAIN_ZSTD: &str = "**rootstream, .tar.zst**";
/// The agent and chunks of gzip, with two workers.
pub const PUBLISHED_GZIP: &str = "**rootstream, published gzip, 2 workers**";
/// The agent and chunks of zstd, with two workers.
pub const PUBLISHED_ZSTD: &str = "**rootstream, published zstd, 2 workers**";
/// The agent and chunks of gzip, with one worker.
pub const PUBLISHED_GZIP_ALONE: &str = "rootstream, published gzip, 1 worker";
/// The agent and chunks of zstd, with one worker.
pub const PUBLISHED_ZSTD_ALONE: &str = "rootstream, published zstd, 1 worker";

macro_rules! rehearse {
    ($options:literal) => {
        concat!(r#"exec "$INIT" rehearse --json --root "$ROOT" --cmdline "rootstream.image=$URL" "#, $options)
    };
}

macro_rules! gnu_tar {
    ($before:literal) => {
        concat!($before, r#" | tar x -C "$ROOT" --numeric-owner --xattrs --xattrs-include='*'"#)
    };
}

const fn peer(name: &'static str, packing: Packing, command: &'static str) -> Way {
    Way { name, packing, command, agent: false }
}

const fn agent(name: &'static str, packing: Packing, command: &'static str) -> Way {
    Way { name, packing, command, agent: true }
}

/// All of them, in the order in which they take turns.
pub const WAYS: [Way; 12] = [
    peer(
        BUSYBOX,
        Packing::Gzip,
        r#"busybox wget -q -O - "$URL" | busybox gunzip -c | busybox tar x -C "$ROOT" --numeric-owner"#,
    ),
    peer(GZIP, Packing::Gzip, gnu_tar!(r#"curl -sS "$URL" | gzip -d"#)),
    peer("curl, pigz, GNU tar", Packing::Gzip, gnu_tar!(r#"curl -sS "$URL" | pigz -dc"#)),
    peer(BSDTAR, Packing::Gzip, r#"curl -sS "$URL" | bsdtar -xpf - -C "$ROOT" --numeric-owner"#),
    peer(
        "curl into a file, then GNU tar",
        Packing::Gzip,
        concat!(gnu_tar!(r#"curl -sS -o "$ROOT/.image" "$URL"; gzip -dc "$ROOT/.image""#), r#"; rm "$ROOT/.image""#),
    ),
    agent(PLAIN_GZIP, Packing::Gzip, rehearse!("")),
    peer(ZSTD, Packing::Zstd, gnu_tar!(r#"curl -sS "$URL" | zstd -dc"#)),
    agent(PLAIN_ZSTD, Packing::Zstd, rehearse!("")),
    agent(PUBLISHED_GZIP_ALONE, Packing::PublishedGzip, rehearse!("--workers 1")),
    agent(PUBLISHED_GZIP, Packing::PublishedGzip, rehearse!("--workers 2")),
    agent(PUBLISHED_ZSTD_ALONE, Packing::PublishedZstd, rehearse!("--workers 1")),
    agent(PUBLISHED_ZSTD, Packing::PublishedZstd, rehearse!("--workers 2")),
];
