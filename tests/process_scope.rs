//! A scope ends with nothing left of what was started in it, and its handles are as good as others.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{ExitStatus, JoinError, Process, Rung, Stdio, embed, join_all, scope};
use nix::unistd::Pid;
use support::{Gate, Marks, begin, block_on, park_for_ever, procfs, through};

fn new() -> Builder {
    Process::builder()
}

#[test]
fn a_scoped_handle_does_what_a_handle_does() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    scope(|s| {
        let named = new().name("scoped");
        let mut scoped = s.start_with(named, (gate.path(), 1u8), through).unwrap();
        assert_eq!((scoped.id(), scoped.name()), (gate.wait().as_raw() as u32, "scoped"));
        assert_eq!(scoped.try_join().unwrap(), None);
        assert!(!scoped.is_finished());
        gate.open_once();
        assert_eq!(scoped.join_timeout(Duration::MAX).unwrap(), Some(1));
        assert!(scoped.is_finished());
        assert!(matches!(scoped.join(), Err(JoinError::AlreadyJoined)));
        let end = s.start((), |()| -> u8 { park_for_ever() }).unwrap().terminate().unwrap();
        assert_eq!((end.rung, end.status), (Rung::Stop, ExitStatus::Exited(0)));
        let end = s.start((), |()| -> u8 { park_for_ever() }).unwrap().kill().unwrap();
        assert_eq!((end.rung, end.status.signal()), (Rung::Kill, Some(9)));
        let read = |()| std::env::var("EPILOGUE_A").unwrap();
        let process = s.start_with(new().env("EPILOGUE_A", "x"), (), read).unwrap();
        assert_eq!(process.join().unwrap(), "x");
        let squares = join_all((0..4u64).map(|x| s.start(x, |x| x * x).unwrap()));
        let squares: Vec<_> = squares.into_iter().map(Result::unwrap).collect();
        assert_eq!(squares, [0, 1, 4, 9]);
    });
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_scoped_process_gives_back_its_output_and_can_be_awaited() {
    let (oracle, _watchdog) = begin();
    scope(|s| {
        let captured = new().stdout(Stdio::Capture);
        let process = s.start_with(captured, (), |()| println!("told")).unwrap();
        let output = process.join_output();
        output.result.unwrap();
        assert_eq!(output.stdout, b"told\n");
        let mut awaited = s.start(3u64, |x| x * x).unwrap();
        assert_eq!(block_on(&mut awaited).unwrap(), 9);
        assert!(matches!(block_on(&mut awaited), Err(JoinError::AlreadyJoined)));
        assert!(matches!(block_on(awaited), Err(JoinError::AlreadyJoined)));
    });
    // The thread that waited has told it, and ends.
    oracle.nothing_left_soon();
}

/// Its finalizer is done when that of its partner has begun.
fn meet((gate, marks, own, other): (PathBuf, PathBuf, String, String)) -> u8 {
    embed::finalizer("meet", move || {
        let marks = Marks::at(&marks);
        marks.leave(&own);
        while marks.count(&other) == 0 {
            std::thread::yield_now();
        }
        marks.leave("met");
    });
    Gate::pass(&gate);
    park_for_ever()
}

#[test]
fn a_panic_asks_all_the_processes_of_a_scope_to_stop_before_it_waits_for_any() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            let start = |own: &str, other: &str| {
                let argument = (gate.path(), marks.path(), own.to_owned(), other.to_owned());
                s.start_with(new().grace_period(Duration::from_secs(20)), argument, meet).unwrap()
            };
            // Handles that the panic drops one after the other.
            let _held = (start("first", "second"), start("second", "first"));
            gate.wait_for(2);
            gate.open_once();
            panic!("out of the scope");
        })
    }));
    assert!(unwound.is_err());
    assert_eq!(marks.count("met"), 2);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_handle_that_a_caught_panic_dropped_is_waited_for_by_the_scope() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    scope(|s| {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            let _held = s.start((gate.path(), marks.path()), |(gate, marks)| -> u8 {
                embed::finalizer("end", move || Marks::at(&marks).leave("end"));
                Gate::pass(&gate);
                park_for_ever()
            });
            gate.wait();
            panic!("within the scope");
        }));
        assert!(caught.is_err());
        assert_eq!(s.start(1u64, |x| x).unwrap().join().unwrap(), 1);
    });
    assert_eq!(marks.count("end"), 1);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_process_is_started_while_another_thread_waits_for_one_of_the_same_scope() {
    let (oracle, _watchdog) = begin();
    let gate = Gate::new();
    let path = gate.path();
    scope(|s| {
        let start = |n: u32| s.start((path.clone(), n), through);
        // More than are remembered without a look at those that were joined.
        let mut first = start(0)?;
        let some = (1..4).map(start).collect::<Result<Vec<_>, _>>()?;
        let (waits, others) = thread::scope(|threads| {
            let waiter = thread::Builder::new().name("waiter".to_owned());
            let waits = waiter.spawn_scoped(threads, || first.join_timeout(Duration::MAX));
            let sleeps = |one: &procfs::Entry| one.name == "waiter" && one.state == 'S';
            while !procfs::threads_of(Pid::this()).iter().any(sleeps) {
                thread::yield_now();
            }
            let others = (4..9).map(start).collect::<Result<Vec<_>, _>>();
            drop(gate);
            (waits.unwrap().join().unwrap(), others)
        });
        assert_eq!(waits?, Some(0));
        for (process, n) in some.into_iter().chain(others?).zip(1..) {
            assert_eq!(process.join()?, n);
        }
        Ok::<_, JoinError>(())
    })
    .unwrap();
    oracle.nothing_left();
}
