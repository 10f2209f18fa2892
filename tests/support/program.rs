//! Fixture programs: started with piped output, synchronised by lines, ended by signals.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running fixture program. Dropping it kills it, so that a failing test leaves nothing.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: String,
    stderr: Option<JoinHandle<String>>,
    stdout: Option<JoinHandle<()>>,
}

/// How a program ended, and what it had to say.
#[derive(Debug)]
pub struct Ending {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ending {
    /// The exit code, if the program ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What the lines of its output that begin with `start` go on with.
    pub fn after(&self, start: &str) -> Vec<&str> {
        let lines = self.stdout.lines().filter_map(|line| line.strip_prefix(start));
        lines.map(str::trim).collect()
    }

    /// The signal that ended the program, if one did.
    pub fn signal(&self) -> Option<Signal> {
        self.status.signal().and_then(|number| Signal::try_from(number).ok())
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, stdout, stderr } = self;
        write!(f, "{status}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

impl Program {
    /// Starts `command` with pipes for its standard input, output and error.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        // Both are read from the start: a program that fills one pipe must not wait for the other.
        let (send, lines) = mpsc::channel();
        let stdout = spawn_named("stdout", move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        let stderr = spawn_named("stderr", move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let stdin = child.stdin.take();
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        Self { child, stdin, lines, seen: String::new(), stderr, stdout }
    }

    /// The pid of the program. It stays the program's until `reap` or `finish`.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Waits for a line of standard output that begins with `start`, and returns the rest of it.
    ///
    /// # Panics
    ///
    /// If the output ends before. The message holds all that was said.
    #[track_caller]
    pub fn wait_for_line(&mut self, start: &str) -> String {
        while let Ok(line) = self.lines.recv() {
            self.seen.push_str(&line);
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
        panic!("no line begins with {start:?}: {}", self.end());
    }

    /// Writes a line to the program's standard input.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("standard input is closed"), "{line}").unwrap();
    }

    /// Writes a line to the program's standard input, and keeps that open beyond the program's end.
    pub fn tell_and_hold(&mut self, line: &str) -> ChildStdin {
        self.tell(line);
        self.hold_input()
    }

    /// Keeps the program's standard input open beyond the program's own end.
    pub fn hold_input(&mut self) -> ChildStdin {
        self.stdin.take().expect("standard input is closed")
    }

    /// Sends `signal` to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Closes the program's standard input and waits for the program alone. Processes that it
    /// started may live on and keep its output open.
    pub fn reap(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }

    /// Closes the program's standard input, waits for the program and for the end of its output:
    /// everybody who inherited it has ended, too.
    pub fn finish(mut self) -> Ending {
        self.end()
    }

    fn end(&mut self) -> Ending {
        let status = self.reap();
        self.seen.extend(self.lines.iter());
        let stdout = std::mem::take(&mut self.seen);
        let stderr = self.join_readers();
        Ending { status, stdout, stderr }
    }

    fn join_readers(&mut self) -> String {
        if let Some(stdout) = self.stdout.take() {
            let _ = stdout.join();
        }
        self.stderr.take().and_then(|stderr| stderr.join().ok()).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail for a program that has been waited for, and nothing is left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A failing test must not wait for an orphan that holds the output: the oracle ends it.
        if !thread::panicking() {
            self.join_readers();
        }
    }
}

fn spawn_named<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    thread::Builder::new().name(name.to_owned()).spawn(body).unwrap()
}
