//! The code under the models is told that it is under one: its rings are tiny, and nobody spins.

fn main() {
    println!("cargo::rustc-cfg=epilogue_model");
    println!("cargo::rerun-if-changed=build.rs");
}
