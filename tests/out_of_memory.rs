//! A process that the kernel ends because its cgroup has no memory left is told as that, and its
//! parent goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use epilogue::{JoinError, Process, StartMethod};
use support::{Oracle, Watchdog, forbid_swap, not_tried};

const MIB: usize = 1 << 20;

/// A cgroup below our own in which the kernel limits memory, of either version.
fn make(name: &str) -> Option<(PathBuf, &'static str)> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, limit) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = Path::new(root).join(path.trim_start_matches('/')).join(name);
        // Only what the kernel shows there is a cgroup, and only with its limit can it be used.
        fs::create_dir(&group).ok()?;
        if group.join("cgroup.procs").exists() && group.join(limit).exists() {
            return Some((group, limit));
        }
        fs::remove_dir(&group).unwrap();
        None
    })
}

fn enter(group: &Path) -> std::io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

/// In a cgroup of 64 MiB, children that take 512: what is told of each, or why that cannot be tried.
fn starve((group, limit): (PathBuf, String)) -> Result<Vec<String>, String> {
    let limited = fs::write(group.join(limit), (64 * MIB).to_string());
    if !forbid_swap(&group, 64 * MIB as u64) {
        return Err("there is swap, and no way to keep a cgroup from it".to_owned());
    }
    let refused = |error| format!("this cgroup lets nobody into one below it: {error}");
    limited.and_then(|()| enter(&group)).map_err(refused)?;
    let told = [StartMethod::Spawn, StartMethod::Server].map(|method| {
        let builder = || Process::builder().start_method(method);
        let modest = builder().start((), |()| vec![1u8; MIB].len()).unwrap();
        assert_eq!(modest.join().unwrap(), MIB);
        let greedy = |()| {
            let mut all = Vec::new();
            for _ in 0..512 {
                all.push(std::hint::black_box(vec![1u8; MIB]));
            }
            all.len()
        };
        let told = builder().start((), greedy).unwrap().join();
        let modest = builder().start((), |()| vec![1u8; MIB].len()).unwrap();
        assert_eq!(modest.join().unwrap(), MIB);
        assert!(matches!(told, Err(JoinError::OutOfMemory)), "{method:?}: {told:?}");
        format!("{method:?}")
    });
    epilogue::end_servers();
    enter(group.parent().unwrap()).map_err(refused)?;
    Ok(told.to_vec())
}

#[test]
fn a_process_that_the_kernel_ends_for_want_of_memory_is_told_as_that() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(Duration::from_secs(180));
    let name = format!("epilogue-test-{}", std::process::id());
    match make(&name) {
        Some((group, limit)) => {
            let told = Process::start((group.clone(), limit.to_owned()), starve).unwrap().join();
            fs::remove_dir(&group).unwrap();
            match told.unwrap() {
                Ok(told) => assert_eq!(told, ["Spawn", "Server"]),
                Err(why) => not_tried(why),
            }
        }
        None => not_tried("this user may make no cgroup with a limit on memory"),
    }
    oracle.nothing_left();
}
