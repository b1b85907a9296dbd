//! What cargo-fuzz says of every crate, said of this one, so that a stable `cargo check` sees all of it as well.
fn main() {
    println!("cargo:rustc-cfg=fuzzing");
}
