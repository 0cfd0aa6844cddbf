//! `docs/BOOT_PARAMETERS.md`, made from the table.

use std::fmt::Write as _;

use super::PARAMS;

/// The page as Markdown. A test fails when the file in docs/ differs.
pub fn boot_parameters_md() -> String {
    let mut page = String::from(
        "# Boot parameters\n\n\
         Made from the table in `src/cmdline/params.rs` by `make docs`; do not edit.\n\n\
         They stand on the kernel command line of a node: in the PXELINUX, iPXE or GRUB menu, or in `parameters` of\n\
         site.toml and nodes.toml. A duration is a number with `ms`, `s`, `m` or `h`; a bare number is seconds. An unknown\n\
         `rootstream.` name is a warning, a value that cannot be used is an error, and all errors are shown at once. The\n\
         command line can be read by everybody on the node (/proc/cmdline): no secret belongs on it.\n\n\
         `${…}` passes through PXELINUX as it is. GRUB expands it: put the whole parameter in single quotes. iPXE expands it\n\
         too and cannot be told not to, so write its own names there, `${mac:hexhyp}` for `${mac}`; they have no `${arch}`\n\
         and no `${build}`.\n",
    );
    let mut group = "";
    for param in PARAMS {
        if param.group != group {
            group = param.group;
            let _ = write!(page, "\n## {group}\n\n| parameter | value | default | meaning |\n|---|---|---|---|\n");
        }
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{}=` | {} | {} | {} |",
            param.name,
            cell(param.value),
            cell(param.default),
            cell(param.meaning)
        );
    }
    page
}
