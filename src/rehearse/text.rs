//! The record for people.

use std::fmt::Write as _;

use crate::report::Record;
use crate::wording::counted;

/// A few lines; the last one is the verdict.
pub(super) fn of(record: &Record) -> String {
    let mut text = String::new();
    for step in &record.steps {
        let _ =
            writeln!(text, "{:<10} {} in {:.2} s", step.name, if step.ok { "done" } else { "failed" }, step.seconds);
    }
    if let Some(lease) = &record.lease {
        let _ = writeln!(text, "{:<10} {}/{} from {}", "lease", lease.address, lease.prefix, lease.server);
    }
    if let Some(image) = &record.image {
        let _ = writeln!(text, "{:<10} {}: {} bytes, {}", "image", image.url, image.bytes, image.media);
        let _ = writeln!(text, "{:<10} {} entries, {} bytes of files", "unpacked", image.entries, image.unpacked);
        let _ = writeln!(text, "{:<10} {}", "sha256", image.sha256);
        for overlay in &record.overlays {
            let trust = serde_json::to_value(overlay.trust).unwrap_or_default();
            let (url, trust) = (&overlay.url, trust.as_str().unwrap_or_default());
            let _ = writeln!(text, "{:<10} {url}: {} bytes, {}, {trust}", "overlay", overlay.bytes, overlay.media);
        }
        let trust = serde_json::to_value(record.trust).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<10} {}; resumed or started again {}",
            "trust",
            trust.as_str().unwrap_or_default(),
            counted(record.retries.into(), "time")
        );
    }
    for mirror in &record.mirrors {
        let (url, requests, bytes) = (&mirror.url, counted(mirror.requests.into(), "request"), mirror.bytes);
        let _ = writeln!(text, "{:<10} {url}: {requests}, {} failed, {bytes} bytes", "server", mirror.failures);
    }
    for reason in &record.reasons {
        let _ =
            writeln!(text, "{:<10} {}: {}, {}", "tried", reason.url, reason.why, counted(reason.count.into(), "time"));
    }
    let _ = writeln!(text, "{:<10} kernel: {}; architecture: {}", "checks", record.checks.kernel, record.checks.arch);
    for path in &record.handover {
        let _ = writeln!(text, "{:<10} hand-over would write {path}", "");
    }
    for warning in &record.warnings {
        let _ = writeln!(text, "{:<10} {warning}", "warning");
    }
    match &record.error {
        Some(failure) => {
            let _ = writeln!(text, "would not boot: {failure}");
        }
        None => text.push_str("would boot\n"),
    }
    text
}
