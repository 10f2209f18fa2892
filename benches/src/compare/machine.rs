//! On what the figures were measured.

use std::fs;
use std::process::Command;
use std::thread;

/// A list for the top of the results. No name of a machine or a person is in it.
pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let gib = kib.unwrap_or(0.0) / (1 << 20) as f64;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = says("rustc", &["--version"]);
    format!(
        "- Machine: {cpus} CPUs ({model}), {gib:.0} GiB\n- Kernel: Linux {}\n- Compiler: {rustc}\n- Commit: {}\n",
        kernel.trim(),
        commit()
    )
}

fn commit() -> String {
    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let commit = says("git", &["-C", ROOT, "rev-parse", "--short=12", "HEAD"]);
    // The results themselves are what a run changes.
    let changes =
        ["-C", ROOT, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benches/*.md"];
    if says("git", &changes).is_empty() { commit } else { format!("{commit}, with changes") }
}

/// What a program prints, or that it is unknown.
fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}
