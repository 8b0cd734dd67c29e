//! Records when the binary was built, so that it can tell a box whose clock is plainly wrong.

#![expect(clippy::disallowed_methods, reason = "when it is built is what is asked for")]

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=scripts/build.rs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let built_at = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|seconds| seconds.parse::<u64>().ok())
        .or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs()))
        .unwrap_or(0);
    println!("cargo:rustc-env=BUILD_UNIX_SECONDS={built_at}");
}
