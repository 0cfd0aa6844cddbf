//! Links the static agent without the tables that only unwinding needs (initramfs/init.ld).

fn main() {
    println!("cargo::rerun-if-changed=initramfs/init.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Only there do panics abort.
    if is("CARGO_CFG_TARGET_ENV", "musl")
        && is("PROFILE", "release")
        && let Ok(folder) = std::env::var("CARGO_MANIFEST_DIR")
    {
        println!("cargo::rustc-link-arg-bin=init=-Wl,-T,{folder}/initramfs/init.ld");
    }
}
