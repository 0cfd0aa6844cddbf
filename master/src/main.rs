//! The companion's command, `rootstream`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rootstream_master::cli::main()
}
