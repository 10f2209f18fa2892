//! What a pool costs that has nothing to do: how often its threads wake up in a second.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::Duration;

use super::tree;
use crate::figure::Printer;
use crate::meeting::Meeting;
use crate::peers;
use crate::settings::Settings;
use crate::tasks::Task;

pub(super) fn run(print: Printer<'_>, settings: Settings) {
    let mut meeting = Meeting::new();
    for workers in [2, 16] {
        let mut pool = peers::start(print.peer, workers);
        thread::scope(|scope| {
            scope.spawn(|| meeting.hold(workers, || {}));
            pool.map(Task::Meet, &vec![0; workers], Some(1));
        });
        // What looks for work a while after the last has stopped by then.
        thread::sleep(Duration::from_millis(300));
        let seconds = settings.pick(5, 1, 1);
        let before = switches();
        thread::sleep(Duration::from_secs(seconds));
        let after = switches();
        let me = (std::process::id(), std::process::id());
        let (mut parent, mut children) = (0, 0);
        // This thread itself slept once.
        for (thread, count) in after.iter().filter(|(thread, _)| **thread != me) {
            let woken = count - before.get(thread).copied().unwrap_or(0);
            if thread.0 == me.0 { parent += woken } else { children += woken }
        }
        let case = format!("pool n={workers}");
        let rate = |woken: u64| woken as f64 / seconds as f64;
        print.emit(&case, "parent_wakeups_per_s", rate(parent));
        print.emit(&case, "worker_wakeups_per_s", rate(children));
        pool.close();
    }
}

/// How often each thread of this process and its descendants has given up the CPU by itself, by
/// the ids of process and thread.
fn switches() -> HashMap<(u32, u32), u64> {
    let mut all = HashMap::new();
    for pid in tree() {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let Some(tid) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            all.insert((pid, tid), line.and_then(|count| count.trim().parse().ok()).unwrap_or(0));
        }
    }
    all
}
