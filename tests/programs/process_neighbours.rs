//! A program whose other code treats processes, signals and descriptors badly, in the way its
//! first argument says, while it starts processes. It says `done` if each ended with its value or
//! with a typed error.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{ExitStatus, JoinError, Pool, Process, StartError, StopError, channel, wait_any};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Uid, getpid, getppid, setsid, setuid};
use support::{park_for_ever, procfs, raw};

mod sys {
    //! What safe code cannot do to itself. Each block holds one call.
    #![expect(unsafe_code, reason = "what this program does to its processes is what it is about")]

    use std::ffi::{c_int, c_uint, c_ulong};
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::libc;

    /// Lets children vanish as they end, without their handler being changed.
    pub fn leave_no_zombies() {
        // SAFETY: plain data; zero is the default action, an empty mask and no restorer.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_flags = libc::SA_NOCLDWAIT;
        // SAFETY: `action` lives through the call, and installs no code.
        let refused = unsafe { libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut()) };
        assert_eq!(refused, 0);
    }

    static TICKS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn tick(_: c_int) {
        TICKS.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a wait was interrupted, or could have been, since `interrupt_often`.
    pub fn ticks() -> usize {
        TICKS.load(Ordering::Relaxed)
    }

    /// Interrupts this process a thousand times a second, by a handler after which the kernel makes
    /// no call again.
    pub fn interrupt_often() {
        // SAFETY: plain data; zero is an empty mask, no flags and no restorer.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = tick as extern "C" fn(c_int) as usize;
        // SAFETY: `action` lives through the call; the handler adds to an atomic and no more.
        let refused = unsafe { libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()) };
        assert_eq!(refused, 0);
        let often = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: often, it_value: often };
        // SAFETY: `timer` lives through the call; a null old value is allowed.
        let refused = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
        assert_eq!(refused, 0);
    }

    /// Closes every descriptor from `first` on, whoever owns it.
    pub fn close_all_from(first: c_uint) {
        // SAFETY: none for whoever owns them. That is what the story is about.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) };
        assert_eq!(closed, 0);
    }

    /// Makes the system calls of these numbers fail with `error` in this thread.
    pub fn inject(error: c_int, calls: &[libc::c_long]) {
        let statement = |code: u32, k: u32, skip: u8| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: skip,
            k,
        };
        let fail = libc::SECCOMP_RET_ERRNO | error as u32;
        let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
        for &call in calls {
            filter.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 1));
            filter.push(statement(libc::BPF_RET | libc::BPF_K, fail, 0));
        }
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        let (one, none): (c_ulong, c_ulong) = (1, 0);
        // SAFETY: five integers; it only takes rights away.
        let refused = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) };
        assert_eq!(refused, 0);
        let mode = libc::SECCOMP_MODE_FILTER as c_ulong;
        // SAFETY: the program and its statements live through the call, which copies them.
        let refused = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &program) };
        assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
    }
}

const ROUNDS: u32 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let story = env::args().nth(1).ok_or("no story")?;
    match story.as_str() {
        "waits" => others_wait(),
        "ignores" => {
            raw::ignore(libc::SIGCHLD);
            every_ending();
        }
        "no-zombies" => {
            sys::leave_no_zombies();
            every_ending();
        }
        "blocks" => {
            SigSet::all().thread_block()?;
            every_ending();
        }
        "masks" => masks(),
        "interrupts" => interrupts(),
        "forks" => forks(),
        "daemonizes" => daemonizes(),
        "changes-directory" => changes_directory()?,
        "closes" => closes(),
        "closes-own" => closes_own(),
        "exec-fails" => exec_fails(),
        "argument-list" => argument_list(),
        "descriptors" => few_descriptors()?,
        "processes" => few_processes()?,
        other => Err(format!("no such story: {other}"))?,
    }
    println!("done");
    io::stdout().flush()?;
    Ok(())
}

/// A process that returns, one that exits, one that is killed, one that is told to stop: values
/// are always right; what only the exit status tells may be unknown.
fn every_ending() {
    for round in 0..ROUNDS {
        let value = Process::start(round, |x| x * 2).unwrap();
        let large = Process::start(1 << 20, |length: usize| vec![7u8; length]).unwrap();
        let exits = Process::start((), |()| -> u8 { process::exit(3) }).unwrap();
        let parked = || Process::start((), |()| -> u8 { park_for_ever() }).unwrap();
        let (killed, stopped) = (parked(), parked());
        assert!(wait_any(&[&killed, &value, &stopped]) == Some(1));
        assert_eq!(value.join().unwrap(), round * 2);
        assert_eq!(large.join().unwrap().len(), 1 << 20);
        let exited = exits.join();
        let honest = matches!(exited, Err(JoinError::Exited(3) | JoinError::Unknown));
        assert!(honest, "{exited:?}");
        let status = killed.kill().unwrap().status;
        assert!(status == ExitStatus::Unknown || status.signal() == Some(9), "{status:?}");
        let end = stopped.terminate().unwrap();
        assert!(matches!(end.status, ExitStatus::Unknown | ExitStatus::Exited(0)), "{end:?}");
    }
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(0..20u32, |x| x + 1).unwrap().len(), 20);
}

/// A start, whatever becomes of it, leaves the mask of its thread as it was.
fn masks() {
    let own = SigSet::from(Signal::SIGUSR1);
    for (errno, calls) in [
        (Errno::EAGAIN, [libc::SYS_clone, libc::SYS_clone3]),
        (Errno::ENOENT, [libc::SYS_execve, libc::SYS_execveat]),
        (Errno::EMFILE, [libc::SYS_socketpair, libc::SYS_pidfd_open]),
    ] {
        let attempts = thread::spawn(move || {
            own.thread_set_mask().unwrap();
            let is_kept = || assert_eq!(SigSet::thread_get_mask(), Ok(own), "{errno}");
            assert_eq!(add(Process::builder()).unwrap().join().unwrap(), 3);
            is_kept();
            let pool = Pool::new(1).unwrap();
            is_kept();
            sys::inject(errno as i32, &calls);
            failed_with(errno, add(Process::builder()));
            is_kept();
            assert!(Pool::new(1).is_err());
            is_kept();
            assert_eq!(pool.map(0..20u32, |x| x + 1).unwrap().len(), 20);
            is_kept();
        });
        attempts.join().unwrap();
    }
}

/// Whatever waits is interrupted all the time.
fn interrupts() {
    sys::interrupt_often();
    every_ending();
    let pool = Pool::new(2).unwrap();
    for round in 0..100u32 {
        assert_eq!(pool.map(0..20u32, |x| x + 1).unwrap()[19], 20);
        let task = pool.submit(round, |x| {
            thread::sleep(Duration::from_millis(5));
            x
        });
        assert_eq!(task.unwrap().join().unwrap(), round);
    }
    let large = pool.submit(8 << 20, |length: usize| vec![7u8; length]).unwrap();
    assert_eq!(large.join().unwrap().len(), 8 << 20);
    let (sender, receiver) = channel::<u32>().unwrap();
    let sends = Process::start(sender, |sender| {
        for n in 0..50 {
            thread::sleep(Duration::from_millis(2));
            sender.send(n).unwrap();
        }
    });
    assert!(receiver.iter().map(Result::unwrap).eq(0..50));
    sends.unwrap().join().unwrap();
    assert!(pool.close().unwrap().is_clean());
    assert!(sys::ticks() > 100, "{} interruptions", sys::ticks());
}

/// Another thread takes every exit status that it can get.
fn others_wait() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let thief = thread::spawn(|| {
        let mut stolen = 0u64;
        while !STOP.load(Ordering::SeqCst) {
            stolen += u64::from(waitpid(None, None).is_ok());
        }
        stolen
    });
    every_ending();
    STOP.store(true, Ordering::SeqCst);
    println!("stolen: {}", thief.join().unwrap());
}

/// A copy of this process has no say in what the original started, and takes nothing from it.
fn forks() {
    let large = Process::start(1 << 20, |length: usize| vec![7u8; length]).unwrap();
    let mut parked: Process<u8> = Process::start((), |()| park_for_ever()).unwrap();
    match raw::fork() {
        None => {
            for _ in 0..1000 {
                assert!(!large.is_finished());
            }
            assert_eq!(wait_any(&[&parked, &large]), Some(0), "it must not wait for a stranger");
            assert!(matches!(parked.try_join(), Err(JoinError::NotParent)));
            assert!(matches!(large.join(), Err(JoinError::NotParent)));
            assert!(matches!(parked.terminate(), Err(StopError::NotParent)));
            // It can start its own.
            assert_eq!(Process::start(1, |x: u8| x).unwrap().join().unwrap(), 1);
            process::exit(0);
        }
        Some(copy) => assert!(matches!(waitpid(copy, None), Ok(WaitStatus::Exited(_, 0)))),
    }
    assert_eq!(large.join().unwrap().len(), 1 << 20);
    assert!(parked.try_join().unwrap().is_none());
    assert_eq!(parked.terminate().unwrap().status, ExitStatus::Exited(0));
}

/// Becomes a daemon: a copy goes on, and the original exits.
fn daemonizes() {
    assert_eq!(Process::start(1, |x: u8| x).unwrap().join().unwrap(), 1);
    let original = getpid();
    let mut pipe = io::pipe().unwrap();
    if raw::fork().is_some() {
        process::exit(0);
    }
    // Only when the original is gone, which has the other end: nobody writes.
    drop(pipe.1);
    assert_eq!(pipe.0.read(&mut [0]).unwrap(), 0);
    while getppid() == original {
        thread::yield_now();
    }
    setsid().unwrap();
    every_ending();
}

fn changes_directory() -> Result<(), Box<dyn Error>> {
    let process = Process::start((), |()| env::current_dir().is_ok())?;
    let directory = env::temp_dir().join(format!("epilogue-gone-{}", process::id()));
    fs::create_dir(&directory)?;
    env::set_current_dir(&directory)?;
    fs::remove_dir(&directory)?;
    assert!(process.join()?);
    every_ending();
    // Children are where we are, which is nowhere, unless they are told.
    assert!(!Process::start((), |()| env::current_dir().is_ok())?.join()?);
    let root = Process::builder().current_dir("/").start((), |()| env::current_dir().unwrap())?;
    assert_eq!(root.join()?, PathBuf::from("/"));
    Ok(())
}

/// A copy closes all that it inherited, as daemons do.
fn closes() {
    let value = Process::start(2, |x: u32| x * 2).unwrap();
    let parked: Process<u8> = Process::start((), |()| park_for_ever()).unwrap();
    let Some(copy) = raw::fork() else {
        sys::close_all_from(3);
        assert!(!parked.is_finished());
        assert_eq!(wait_any(&[&parked, &value]), Some(0));
        // What it holds is neither dropped nor waited for.
        process::exit(0);
    };
    let status = waitpid(copy, None);
    assert!(matches!(status, Ok(WaitStatus::Exited(_, 0))), "{status:?}");
    assert_eq!(value.join().unwrap(), 4);
    assert_eq!(parked.terminate().unwrap().status, ExitStatus::Exited(0));
    every_ending();
}

/// This very process closes descriptors that are not its own, under living handles.
fn closes_own() {
    let value = Process::start(2, |x: u32| x * 2).unwrap();
    let parked: Process<u8> = Process::start((), |()| park_for_ever()).unwrap();
    sys::close_all_from(3);
    println!("value: {:?}", value.join().map_err(|error| error.to_string()));
    println!("parked: {:?}", parked.terminate().map(|end| end.rung));
}

/// What a failed start must not change: descriptors, threads, and that there are no children.
#[derive(Debug, PartialEq)]
struct Trace {
    descriptors: usize,
    threads: usize,
    children: bool,
}

fn trace() -> Trace {
    Trace {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        threads: procfs::threads_of(getpid()).len(),
        children: waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD),
    }
}

fn add(builder: Builder) -> Result<Process<u8>, StartError> {
    builder.start((1, 2), |(a, b): (u8, u8)| a + b)
}

/// Asserts that the start failed with that error of the system's.
#[track_caller]
fn failed_with(errno: Errno, start: Result<Process<u8>, StartError>) {
    match start.map(|process| process.id()) {
        Err(StartError::System { step, source }) => {
            assert_eq!(source.raw_os_error(), Some(errno as i32), "{step}: {source}");
        }
        other => panic!("{errno}: {other:?}"),
    }
}

/// Each error that `exec` and `clone` can have, in a thread that is not used again.
fn exec_fails() {
    let execs = [libc::SYS_execve, libc::SYS_execveat];
    let clones = [libc::SYS_clone, libc::SYS_clone3];
    let errors = [
        (Errno::ENOENT, execs),
        (Errno::EACCES, execs),
        (Errno::ETXTBSY, execs),
        (Errno::E2BIG, execs),
        (Errno::EMFILE, execs),
        (Errno::EAGAIN, execs),
        (Errno::ENOMEM, execs),
        (Errno::EAGAIN, clones),
        (Errno::ENOMEM, clones),
    ];
    assert_eq!(add(Process::builder()).unwrap().join().unwrap(), 3);
    for (errno, calls) in errors {
        let before = trace();
        let attempts = thread::spawn(move || {
            sys::inject(errno as i32, &calls);
            for _ in 0..3 {
                failed_with(errno, add(Process::builder()));
                failed_with(errno, add(Process::builder().end_tree().own_process_group()));
                let pool = Pool::new(2).map(drop);
                assert!(pool.is_err(), "{pool:?}");
            }
        });
        attempts.join().unwrap();
        assert_eq!(trace(), before, "{errno}");
        assert_eq!(add(Process::builder()).unwrap().join().unwrap(), 3);
    }
}

/// More than an argument list may hold, by itself.
fn argument_list() {
    let before = trace();
    failed_with(Errno::E2BIG, add(Process::builder().env("EPILOGUE_A", "x".repeat(4 << 20))));
    assert_eq!(trace(), before);
    assert_eq!(add(Process::builder()).unwrap().join().unwrap(), 3);
}

/// Every number of descriptors that there may be: a start works or fails, and leaves none open.
fn few_descriptors() -> Result<(), Box<dyn Error>> {
    assert_eq!(add(Process::builder())?.join()?, 3);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let before = trace();
    let mut works = Vec::new();
    for limit in 3..=40 {
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
        let started = add(Process::builder().stdout(epilogue::Stdio::Capture));
        let joined = started.map(Process::join_output);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        match joined {
            Ok(output) => {
                assert_eq!(output.result?, 3);
                works.push(limit);
            }
            Err(StartError::System { step, source }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{limit}: {step}: {source}");
            }
            // The child inherits the limit.
            Err(StartError::Refused(refusal)) => println!("{limit}: {refusal}"),
            Err(other) => return Err(format!("{limit}: {other:?}").into()),
        }
        assert_eq!(trace(), before, "{limit}");
    }
    assert!(works.windows(2).all(|pair| pair[1] == pair[0] + 1), "{works:?}");
    assert_eq!(works.last(), Some(&40), "{works:?}");
    assert_eq!(add(Process::builder())?.join()?, 3);
    Ok(())
}

/// As nobody, who may have no more processes.
fn few_processes() -> Result<(), Box<dyn Error>> {
    if !Uid::effective().is_root() {
        println!("not tried: it takes root to become somebody who has no other processes");
        return Ok(());
    }
    // A number that nobody else has.
    setuid(Uid::from_raw(4_000_000 + process::id()))?;
    assert_eq!(add(Process::builder())?.join()?, 3);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC)?;
    let before = trace();
    setrlimit(Resource::RLIMIT_NPROC, 1, hard)?;
    failed_with(Errno::EAGAIN, add(Process::builder()));
    assert!(Pool::new(2).map(drop).is_err());
    // With room for the process, but not for its threads.
    setrlimit(Resource::RLIMIT_NPROC, before.threads as u64 + 1, hard)?;
    let refused = add(Process::builder()).map(|process| process.id());
    assert!(matches!(refused, Err(StartError::Refused(_))), "{refused:?}");
    setrlimit(Resource::RLIMIT_NPROC, soft, hard)?;
    assert_eq!(trace(), before);
    assert_eq!(add(Process::builder())?.join()?, 3);
    Ok(())
}
