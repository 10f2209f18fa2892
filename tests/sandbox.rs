//! A process in a sandbox can do what it was left, and no more: it opens no file, connects to
//! nobody, signals nobody, executes nothing, and looks into no other process. And how much of the
//! sandbox the kernel enforces is told when it is up.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU64;

use epilogue::process::Builder;
use epilogue::{Enforcement, Pool, Process, Sandbox, StartMethod};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc::{PRIO_PROCESS, PRIO_USER, c_int};
use nix::sched::sched_getaffinity;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, execve, execveat, getpgid, getpid, getppid};
use support::{begin, landlock_is_whole, not_tried, refused_step, sys, tcp};

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::Server];

fn new(method: StartMethod, sandbox: Sandbox) -> Builder {
    Process::builder().start_method(method).sandbox(sandbox.required())
}

const PROCESS: c_int = PRIO_PROCESS as c_int;
const USER: c_int = PRIO_USER as c_int;

/// What a process tries, by the names of what it must not be able to do.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Goals {
    /// A file that is there, and one that is not.
    read: PathBuf,
    write: PathBuf,
    /// A file that may be executed, and of which the kernel then finds that it is no program.
    program: PathBuf,
    /// A port where somebody listens, a socket with a path where somebody does, and one with a name
    /// that is no path.
    port: u16,
    socket: PathBuf,
    name: Vec<u8>,
    /// A variable of the parent's.
    secret: usize,
    /// What nobody can do on this machine.
    lacking: Vec<String>,
}

static SECRET: AtomicU64 = AtomicU64::new(0);

/// What is possible once the kernel has come to see that this is no program: who executed one would not
/// come back to tell.
fn executed(result: nix::Result<Infallible>) -> io::Result<()> {
    match result {
        Err(Errno::ENOEXEC) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn unix(result: nix::Result<()>) -> io::Result<()> {
    result.map_err(io::Error::from)
}

/// Executes a file in memory, which has no name.
fn execute_memory() -> io::Result<()> {
    let mut file = File::from(memfd_create(c"program", MFdFlags::empty())?);
    file.write_all(b"text")?;
    let no_name = CString::default();
    executed(execveat(&file, &no_name, &[c"text"], &[c""; 0], AtFlags::AT_EMPTY_PATH))
}

/// Does something with the parent's pidfd, which every child has, whichever of its descriptors that is.
fn by_pidfd(deed: fn(RawFd) -> io::Result<()>) -> io::Result<()> {
    let all = (3..64).map(deed);
    let is_none = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::EBADF as i32))
    };
    let found: Vec<_> = all.filter(|result| !is_none(result)).collect();
    found.into_iter().reduce(io::Result::or).expect("a pidfd among the descriptors")
}

/// Tries everything, and tells what was possible.
fn try_all(goals: Goals) -> BTreeMap<String, Result<(), String>> {
    let parent = getppid();
    let mut byte = [0];
    let mut local = [IoSliceMut::new(&mut byte)];
    let remote = [RemoteIoVec { base: goals.secret, len: 1 }];
    let datagrams = (AddressFamily::Unix, SockType::Datagram, SockFlag::empty());
    let name = SocketAddr::from_abstract_name(&goals.name).unwrap();
    let program = CString::new(goals.program.as_os_str().as_bytes()).unwrap();
    [
        ("read", fs::read(&goals.read).map(drop)),
        ("list", fs::read_dir(goals.read.parent().unwrap()).map(drop)),
        ("write", fs::write(&goals.write, "x")),
        ("change", fs::OpenOptions::new().append(true).open(&goals.read).map(drop)),
        ("remove", fs::remove_file(&goals.read)),
        ("connect", TcpStream::connect(("127.0.0.1", goals.port)).map(drop)),
        ("connect by data", tcp::connect_by_data(goals.port)),
        ("connect by a message", tcp::connect_by_message(goals.port)),
        ("connect by multipath", tcp::connect_by_multipath(goals.port)),
        ("change the protocol", tcp::may_change_protocol()),
        ("listen anywhere", tcp::listen_anywhere()),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("connect to a path", UnixStream::connect(&goals.socket).map(drop)),
        ("connect to a name", UnixStream::connect_addr(&name).map(drop)),
        (
            "pair of datagrams",
            unix(socketpair(datagrams.0, datagrams.1, None, datagrams.2).map(drop)),
        ),
        ("signal the parent", unix(kill(parent, None))),
        ("signal all", unix(kill(Pid::from_raw(-1), None))),
        ("signal the parent by its pidfd", by_pidfd(sys::may_signal_by_pidfd)),
        ("take a descriptor of the parent", by_pidfd(sys::may_take_descriptor)),
        ("signal the parent's thread", sys::may_signal_thread(parent)),
        ("queue a signal", sys::may_queue_signal(parent)),
        ("queue a signal for a thread", sys::may_queue_signal_for_thread(parent)),
        ("limit the parent", sys::may_see_limits(parent)),
        ("see the parent's locks", sys::may_see_locks(parent)),
        ("see the parent's processors", unix(sched_getaffinity(parent).map(drop))),
        ("see the parent's policy", sys::may_see_policy(parent)),
        ("see the parent's urgency", sys::may_see_urgency(parent)),
        ("see the parent's group", unix(getpgid(Some(parent)).map(drop))),
        ("see the parent's priority", sys::may_see_priority(PROCESS, parent.as_raw() as u32)),
        ("see the user's priority", sys::may_see_priority(USER, 0)),
        ("see the parent's time", sys::may_see_cpu_time(parent)),
        ("start a program", Command::new("/bin/true").status().map(drop)),
        ("execute", executed(execve(&program, &[c"program"], &[c""; 0]))),
        ("execute memory", execute_memory()),
        ("read the parent", unix(process_vm_readv(parent, &mut local, &remote).map(drop))),
        ("open the parent", File::open(format!("/proc/{parent}/mem")).map(drop)),
    ]
    .into_iter()
    .map(|(name, result)| (name.to_owned(), result.map_err(|error| error.to_string())))
    .filter(|(name, _)| !goals.lacking.contains(name))
    .collect()
}

/// What the process could do of all that.
fn possible(builder: Builder, goals: &Goals) -> Vec<String> {
    fs::write(&goals.read, "text").unwrap();
    let _ = fs::remove_file(&goals.write);
    let process = builder.start(goals.clone(), try_all).unwrap();
    if let Some(level) = process.sandbox() {
        assert!(level.is_full(), "{level:?}");
    }
    let mut could = Vec::new();
    for (name, result) in process.join().unwrap() {
        match result {
            Ok(()) => could.push(name),
            // Not by chance, as a file that does not exist is an error.
            Err(error) => {
                let texts =
                    ["Permission denied", "Operation not permitted", "Function not implemented"];
                assert!(texts.iter().any(|text| error.contains(text)), "{name}: {error}");
            }
        }
    }
    could
}

/// What is left to a process that is confined, and no more: SECURITY.md says so. With a socket of a pair
/// of datagrams it could send to sockets with a path. To signal all is no error where nobody may be
/// signalled: the kernel does not tell of those.
const UNKNOWN_TO_LANDLOCK: [&str; 17] = [
    "change the protocol",
    "connect by a message",
    "connect by data",
    "connect by multipath",
    "connect to a path",
    "execute memory",
    "limit the parent",
    "listen anywhere",
    "pair of datagrams",
    "see the parent's group",
    "see the parent's policy",
    "see the parent's priority",
    "see the parent's processors",
    "see the parent's time",
    "see the parent's urgency",
    "see the user's priority",
    "signal all",
];

/// That, but for what this machine has not, and this as well.
fn known_and(more: &[&'static str], goals: &Goals) -> Vec<&'static str> {
    let mut known = [UNKNOWN_TO_LANDLOCK.as_slice(), more].concat();
    known.retain(|name| !goals.lacking.iter().any(|it| it == name));
    known.sort_unstable();
    known.dedup();
    known
}

/// What this process, which is in no sandbox, cannot do either: older kernels, and such that are built or
/// set otherwise, know of less.
fn lacking(port: u16) -> Vec<String> {
    // There is no descriptor of that number.
    let took = sys::may_take_descriptor(-1);
    let takes = took.as_ref().is_err_and(|it| it.raw_os_error() == Some(Errno::EBADF as i32));
    let tried = [
        ("take a descriptor of the parent", if takes { Ok(()) } else { took }),
        ("connect by data", tcp::connect_by_data(port)),
        ("connect by a message", tcp::connect_by_message(port)),
        ("connect by multipath", tcp::connect_by_multipath(port)),
        ("change the protocol", tcp::may_change_protocol()),
    ];
    let lacks = |(name, result): (&str, io::Result<()>)| {
        let error = result.err()?;
        not_tried(format!("{name}: nobody can here: {error}"));
        Some(name.to_owned())
    };
    tried.into_iter().filter_map(lacks).collect()
}

/// Something of each kind that can be reached, and the names of all of it.
fn with_goals(test: impl Fn(&Goals, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = directory.path().join("socket");
    let _unix = UnixListener::bind(&socket).unwrap();
    // Nobody else has the name of the directory.
    let name = directory.path().as_os_str().as_bytes().to_owned();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _named = UnixListener::bind_addr(&address).unwrap();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let program = inner.join("program");
    fs::write(&program, "text").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let goals = Goals {
        program,
        read: inner.join("read"),
        write: inner.join("write"),
        port,
        lacking: lacking(port),
        socket,
        name,
        secret: &raw const SECRET as usize,
    };
    // What is refused to a process has to be what its sandbox refuses.
    sys::let_all_trace();
    test(&goals, directory.path());
}

#[test]
fn without_a_sandbox_everything_that_is_tried_is_possible() {
    let (oracle, _watchdog) = begin();
    with_goals(|goals, _| {
        let could = possible(Process::builder(), goals);
        assert_eq!(could.len(), 36 - goals.lacking.len(), "{could:?}");
    });
    oracle.nothing_left();
}

#[test]
fn a_process_that_only_computes_can_do_none_of_it() {
    let (oracle, _watchdog) = begin();
    for method in METHODS {
        with_goals(|goals, _| {
            assert_eq!(possible(new(method, Sandbox::new().compute_only()), goals), [""; 0]);
            if landlock_is_whole() {
                let both = Sandbox::new().compute_only().confine();
                assert_eq!(possible(new(method, both), goals), [""; 0]);
            }
        });
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn a_process_that_is_confined_can_do_none_of_it_but_what_landlock_does_not_know() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    for method in METHODS {
        with_goals(|goals, _| {
            let could = possible(new(method, Sandbox::new().confine()), goals);
            assert_eq!(could, known_and(&[], goals));
        });
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn what_is_allowed_is_possible_and_nothing_else() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    with_goals(|goals, directory| {
        let inner = directory.join("inner");
        let files = ["change", "list", "read", "remove", "write"];
        // Of a socket that listens and has not been bound the kernel asks nobody.
        let listen = ["listen", "listen anywhere"];
        let cases: [(Sandbox, &[&str]); 5] = [
            (Sandbox::new().allow_read(&inner), &["list", "read"]),
            (Sandbox::new().allow_read(&goals.read), &["read"]),
            (Sandbox::new().allow_write(&inner), &files),
            (Sandbox::new().allow_connect(goals.port), &["connect"]),
            (Sandbox::new().allow_bind(0), &listen),
        ];
        for (sandbox, expected) in cases {
            fs::write(&goals.read, "text").unwrap();
            let alone = possible(new(StartMethod::Spawn, sandbox.clone()), goals);
            assert_eq!(alone, known_and(expected, goals), "{sandbox:?}");
            let both = new(StartMethod::Spawn, sandbox.clone().compute_only());
            assert_eq!(possible(both, goals), expected, "{sandbox:?}, computing only");
        }
    });
    oracle.nothing_left();
}

#[test]
fn a_program_that_may_be_executed_is_and_has_no_more_rights_than_its_process() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    let mut sandbox = Sandbox::new().confine();
    for path in
        ["/bin", "/usr", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists())
    {
        sandbox = sandbox.allow_execute(path);
    }
    let process = new(StartMethod::Spawn, sandbox).start((), |()| {
        let status = |program: &str, argument: &str| {
            Command::new(program).arg(argument).status().unwrap().success()
        };
        (status("/bin/true", ""), status("/bin/cat", "/etc/passwd"))
    });
    assert_eq!(process.unwrap().join().unwrap(), (true, false));
    oracle.nothing_left();
}

#[test]
fn a_new_process_has_no_way_to_new_privileges() {
    let (oracle, _watchdog) = begin();
    let look = |()| nix::sys::prctl::get_no_new_privs().unwrap();
    let without = Process::start((), look).unwrap();
    let with = new(StartMethod::Spawn, Sandbox::new()).start((), look).unwrap();
    assert_eq!((without.sandbox(), with.sandbox().unwrap().is_full()), (None, true));
    assert_eq!((without.join().unwrap(), with.join().unwrap()), (false, true));
    oracle.nothing_left();
}

/// What a process is refused that raises its own limit, lifts it, and lowers it, by both system calls.
fn change_limits(_: ()) -> [Option<i32>; 4] {
    let refused = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    let set = |soft, hard| setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(io::Error::from);
    let older = |value| sys::set_limit_by_the_older_call(Resource::RLIMIT_NOFILE as u32, value);
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (64, 64));
    let results = [set(128, 128), older(128), set(32, 64), older(32)].map(refused);
    let is_as_before = getrlimit(Resource::RLIMIT_NOFILE).unwrap() == (64, 64);
    assert_eq!(is_as_before, results.iter().all(Option::is_some));
    results
}

#[test]
fn a_process_that_only_computes_keeps_the_limits_that_it_was_given() {
    let (oracle, _watchdog) = begin();
    let lower = Process::builder().limit_descriptors(64).start((), change_limits).unwrap();
    assert_eq!(lower.join().unwrap()[2..], [None; 2]);
    for method in METHODS {
        let builder = new(method, Sandbox::new().compute_only()).limit_descriptors(64);
        let process = builder.start((), change_limits).unwrap();
        assert!(process.sandbox().unwrap().is_full());
        assert_eq!(process.join().unwrap(), [Some(Errno::EPERM as i32); 4]);
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn a_panic_a_signal_and_a_kill_are_told_from_within_a_sandbox_as_from_without() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    for method in METHODS {
        let start =
            || new(method, Sandbox::new().confine().compute_only()).stderr(epilogue::Stdio::Null);
        let panicked = start().start((), |()| -> u8 { panic!("no") }).unwrap().join();
        assert!(panicked.unwrap_err().to_string().contains("no"));
        let aborted = start().limit_core(0).start((), |()| -> u8 { std::process::abort() });
        assert!(aborted.unwrap().join().unwrap_err().to_string().contains("SIGABRT"));
        let raised = start().start((), |()| kill(getpid(), Signal::SIGKILL).unwrap());
        assert!(raised.unwrap().join().unwrap_err().to_string().contains("SIGKILL"));
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn the_workers_of_a_pool_are_in_the_sandbox_each_and_go_on_when_a_task_is_refused() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    for method in METHODS {
        let sandbox = Sandbox::new().confine().compute_only().required();
        let pool =
            Pool::builder().workers(2).start_method(method).sandbox(sandbox).start().unwrap();
        let read = |n: u32| match n % 7 {
            0 => Err(fs::read("/etc/passwd").unwrap_err().kind().to_string()),
            1 => Ok(vec![n; 100_000]),
            _ => Ok(vec![n]),
        };
        let all: Vec<Result<Vec<u32>, String>> = pool.map(0..70u32, read).unwrap();
        for (n, result) in (0..).zip(all) {
            match n % 7 {
                0 => assert_eq!(result, Err(ErrorKind::PermissionDenied.to_string())),
                1 => assert_eq!(result, Ok(vec![n; 100_000])),
                _ => assert_eq!(result, Ok(vec![n])),
            }
        }
        let killed = pool.submit((), |()| kill(getpid(), Signal::SIGKILL).unwrap()).unwrap().join();
        assert!(killed.is_err());
        assert_eq!(pool.map(0..9u8, |n| n).unwrap().len(), 9);
        let report = pool.close().unwrap();
        assert_eq!(report.workers.len(), 3);
        for worker in report.workers {
            let level = worker.end.sandbox.unwrap();
            assert_eq!((level.landlock, level.seccomp), (Enforcement::Full, Enforcement::Full));
        }
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn a_path_that_is_not_there_cannot_be_allowed_and_the_refusal_names_it() {
    let (oracle, _watchdog) = begin();
    let sandbox = Sandbox::new().allow_read("/nowhere/to/be/found");
    let step = refused_step(Process::builder().sandbox(sandbox));
    assert_eq!(step, "allowing /nowhere/to/be/found");
    oracle.nothing_left();
}
