//! `/init` of the initramfs, the kernel's helper there, and `init rehearse`.

use std::process::ExitCode;

use rootstream::modules::helper;
use rootstream::{rehearse, supervise};

fn main() -> ExitCode {
    // The kernel passes stray words of its command line to /init, so the arguments do not tell whether
    // this is a boot; being PID 1 does.
    if std::process::id() == 1 {
        supervise::run();
    }
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(module) = helper::asked_for(&args) {
        return helper::run(module);
    }
    let mut args = args.into_iter();
    if args.next().is_some_and(|verb| verb == "rehearse") {
        return rehearse::run(args);
    }
    eprintln!(
        "This is /init of a rootstream initramfs; it boots a node when the kernel starts it as process 1.\n\
         To try an image without booting: init rehearse --help"
    );
    ExitCode::from(2)
}
