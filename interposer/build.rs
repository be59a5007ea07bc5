//! Link options of the interposer.

fn main() {
    // Our constructor must run before those of the libraries that call our hooks, see
    // docs/determinism.md (layer L1).
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,initfirst");
    // Everything the linker can bind at start is bound at start: lazy binding inside a hook would
    // run the dynamic loader at a moment we don't choose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,now");
    println!("cargo:rustc-cdylib-link-arg=-lc");
    println!("cargo:rerun-if-changed=build.rs");
}
