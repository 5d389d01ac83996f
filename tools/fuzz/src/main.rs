//! The fuzzer: runs the target that `FUZZ_TARGET` names. `tools/fuzz/run` builds and starts it.

#![no_main]
#![allow(unsafe_code, reason = "the fuzzer's entry points have fixed names")]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fuzz::Run> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = fuzz::TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET names no target: {name:?}")).run
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
