//! Processes as std and the kernel offer them: what epilogue replaces.
//!
//! Nothing here is careless. It is what a program does that has not thought of coverage: workers
//! are ended when they are not needed any more, by the signal that is for it.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A worker: this package's program, which answers each line of its input with one of output.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `program` as a worker that does `work`.
    ///
    /// # Errors
    ///
    /// That of the start.
    pub fn start(program: &Path, work: &str) -> io::Result<Self> {
        let mut command = Command::new(program);
        let command = command.args(["worker", work]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let input = child.stdin.take();
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Hands `text` to the worker and waits for its answer, which is `None` if it died.
    ///
    /// # Errors
    ///
    /// That of a pipe.
    pub fn call(&mut self, text: &str) -> io::Result<Option<usize>> {
        self.send(text)?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        Ok(answer.trim().parse().ok())
    }

    /// Hands `text` to the worker.
    ///
    /// # Errors
    ///
    /// That of the pipe.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{}", text.replace('\n', "|"))
    }

    /// Lets the worker end by itself.
    ///
    /// # Errors
    ///
    /// That of the wait.
    pub fn join(mut self) -> io::Result<ExitStatus> {
        drop(self.input.take());
        self.child.wait()
    }

    /// Ends the worker with `SIGTERM`.
    ///
    /// # Errors
    ///
    /// That of the signal, or of the wait.
    pub fn terminate(mut self) -> io::Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        self.child.wait()
    }
}

impl Drop for Worker {
    /// Leaves no process behind, as every guide says: kill, then wait.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
