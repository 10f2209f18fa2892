//! Python's own pools, for the workload that says most: a script that python3 runs in our place.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::settings::Settings;

pub(crate) const MP_POOL: &str = "mp.Pool";
pub(crate) const EXECUTOR: &str = "ProcessPoolExecutor";

pub(crate) fn is_python(peer: &str) -> bool {
    [MP_POOL, EXECUTOR].contains(&peer)
}

/// Whether this machine has a python3.
pub(crate) fn is_there() -> bool {
    let version = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Becomes the script. Returns only if that fails.
pub(crate) fn squares(peer: &str, settings: Settings) -> String {
    let items = settings.pick(1_000_000, 1_000_000, 20_000);
    let singles = settings.pick(100_000, 20_000, 500);
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("squares.py"), peer]);
    python.args([items, singles].map(|number: u32| number.to_string()));
    format!("python3: {}", python.exec())
}
