//! W8: how a pool ends, with the program or before it. This is the program; who looks at it from
//! outside counts the marks that its workers leave, and the processes that are left.

use std::thread;
use std::time::Duration;

use crate::meeting::Meeting;
use crate::peers;
use crate::tasks::Task;

pub(crate) const SCENARIOS: [&str; 10] = [
    "close",
    "drop",
    "drop-busy",
    "exit",
    "panic",
    "term-idle",
    "term-busy",
    "int-busy",
    "kill-idle",
    "kill-busy",
];

const WORKERS: usize = 2;

/// Starts a pool, says that it is ready, and ends as the scenario says.
pub(crate) fn run(peer: &str, scenario: &str) -> Result<(), String> {
    if !SCENARIOS.contains(&scenario) {
        return Err(format!("there is no scenario {scenario}: {}", SCENARIOS.join(", ")));
    }
    if !peers::exists(peer) {
        return Err(format!("there is no peer {peer}"));
    }
    let mut meeting = Meeting::new();
    let mut pool = peers::start(peer, WORKERS);
    thread::scope(|scope| {
        scope.spawn(|| meeting.hold(WORKERS, || {}));
        pool.map(Task::Probe, &[0; WORKERS], Some(1));
    });
    // A signal would leave its directory behind.
    drop(meeting);
    if scenario == "drop-busy" {
        assert!(pool.begin(Task::Sleep, 3_000), "a peer that can begin tasks");
        thread::sleep(Duration::from_millis(500));
    } else if scenario.ends_with("busy") {
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(300));
            println!("READY");
        });
        // A signal ends it before its time.
        pool.map(Task::Sleep, &[60_000; WORKERS], Some(1));
        return Ok(());
    }
    println!("READY");
    match scenario {
        "close" => pool.close(),
        "drop" | "drop-busy" => drop(pool),
        "exit" => std::mem::forget(pool),
        "panic" => panic!("on purpose"),
        _ => thread::sleep(Duration::from_secs(60)),
    }
    Ok(())
}
