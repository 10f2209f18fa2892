//! SIGHUP re-executes this program, as a daemon does to take up a new version of itself: the same
//! process goes on with the new code, and with the data that the old one had in memory.
//!
//! ```sh
//! cargo run --example reload                # then `kill -HUP PID`, as often as you like; Ctrl-C
//! cargo run --example reload -- --reloads 2 # signals itself twice, and ends by itself
//! ```
//!
//! `exec` alone would lose what is in memory, each finalizer and the coverage data with it. A
//! SIGHUP that comes in between waits: it is blocked until the new program can hear it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "examples print")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs};

use epilogue::embed::{self, signal::SIGHUP, signal::SIGINT};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::iterator::Signals;
use signal_hook::low_level::raise;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reloads: Option<u32> = argument("--reloads").map(|count| count.parse()).transpose()?;
    let state = argument("--state").map_or_else(default_state, PathBuf::from);

    let served = Arc::new(AtomicU64::new(read(&state)));
    let (kept, place) = (Arc::clone(&served), state.clone());
    let keep = embed::finalizer("keep the count", move || {
        let count = kept.load(Ordering::SeqCst).to_string();
        if let Err(error) = fs::write(&place, count) {
            eprintln!("{}: {error}", place.display());
        }
    });
    let mut signals = Signals::new([SIGHUP])?;
    let reload = SigSet::from(Signal::SIGHUP);
    reload.thread_unblock()?; // One may have been waiting since before this program began.
    embed::cleanup_on_signal(SIGINT)?;
    embed::cleanup_on_sigterm()?;

    let before = served.fetch_add(1000, Ordering::SeqCst);
    println!("process {} has served {before}, and now serves 1000 more", std::process::id());
    if reloads == Some(0) {
        keep.cancel();
        return Ok(fs::remove_file(&state)?);
    }
    if reloads.is_some() {
        raise(SIGHUP)?;
    }
    signals.forever().next();
    let mut again = Command::new(env::current_exe()?);
    again.arg("--state").arg(&state);
    if let Some(reloads) = reloads {
        again.args(["--reloads", &(reloads - 1).to_string()]);
    }
    // The new program inherits the block. Without it, a SIGHUP before its handler would be deadly.
    reload.thread_block()?;
    // Comes back only if the new program cannot be started.
    Err(embed::exec(&mut again).into())
}

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

fn default_state() -> PathBuf {
    env::temp_dir().join(format!("reload.{}.count", std::process::id()))
}

fn read(state: &Path) -> u64 {
    fs::read_to_string(state).ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}
