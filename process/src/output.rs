//! What came of a process whose output was captured.

use crate::error::JoinError;

/// What a process returned, and what it wrote where that was captured.
///
/// What was captured ends early where this process has no memory for the rest, or where the kernel has had none
/// for a tenth of a second to read it with.
///
/// # Examples
///
/// ```
/// use epilogue_process::{JoinError, Output, Process, Stdio};
///
/// let builder = Process::builder().stderr(Stdio::Capture);
/// let process = builder.start((), |()| -> u8 { panic!("told on standard error") })?;
/// let Output { result, stderr, .. } = process.join_output();
/// assert!(matches!(result, Err(JoinError::Panicked(_))));
/// assert!(String::from_utf8_lossy(&stderr).contains("told on standard error"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Output<R> {
    /// As from [`Process::join`](crate::Process::join).
    pub result: Result<R, JoinError>,
    /// What it and its children wrote to their standard output. Empty if that was not captured.
    pub stdout: Vec<u8>,
    /// What it and its children wrote to their standard error. Empty if that was not captured.
    pub stderr: Vec<u8>,
}

impl<R> Output<R> {
    /// Of a process that was joined before.
    pub(crate) fn already_joined() -> Self {
        let result = Err(JoinError::AlreadyJoined);
        Self { result, stdout: Vec::new(), stderr: Vec::new() }
    }
}
