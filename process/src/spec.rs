//! What a child is started with: all that its builder can set.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Limits;
use crate::entry::MAX_FAULT;
use crate::environment::Environment;
use crate::panics::Backtraces;
use crate::ring::Size;
use crate::sandbox::Sandbox;
use crate::server::StartMethod;
use crate::setup::{Limited, Setup};
use crate::stdio::Stdio;

/// What a child is started with.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What `ps` shows; the kernel keeps 15 bytes of it for the thread.
    pub name: String,
    /// How long it has from the request to stop to the kill.
    pub grace_period: Duration,
    /// How long it has from the start to its hello.
    pub start_deadline: Duration,
    /// What may be sent and received.
    pub limits: Limits,
    /// How it begins.
    pub start_method: StartMethod,
    /// What its start server calls before its first fork.
    pub preload: Option<fn()>,
    /// What runs in it before it says hello.
    pub initializer: Option<fn()>,
    /// What runs in it as it ends, if the initializer has run to its end.
    pub finalizer: Option<fn()>,
    /// What it gives up before any code of its user's runs in it.
    pub sandbox: Option<Sandbox>,
    /// How many calls its wire is made for.
    pub(crate) ring: Size,
    pub(crate) environment: Environment,
    pub(crate) stdio: [Stdio; 3],
    pub(crate) group: Group,
    pub(crate) setup: Setup,
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its input.
    Input,
    /// Its output.
    Output,
    /// Its errors.
    Errors,
}

/// What becomes of what a child started itself, as it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Grandchildren {
    /// It is the user's.
    #[default]
    Kept,
    /// It ends with the child.
    Ended,
}

/// Which process group a child is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// That of its parent, so that the terminal treats them alike.
    Shared,
    Own,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: "worker".to_owned(),
            grace_period: Duration::from_secs(5),
            start_deadline: Duration::from_secs(10),
            limits: Limits::default(),
            start_method: StartMethod::default(),
            preload: None,
            initializer: None,
            finalizer: None,
            sandbox: None,
            ring: Size::Once,
            environment: Environment::default(),
            stdio: [Stdio::Null, Stdio::Inherit, Stdio::Inherit],
            group: Group::Shared,
            setup: Setup::default(),
        }
    }
}

impl Spec {
    /// The longest time that a builder passes on, which is as good as no limit: a hundred years.
    /// The clock has an end, and a sum beyond it panics.
    pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// The defaults, with a name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Makes the wire for a child that gets many calls, not one.
    pub fn expect_many_calls(&mut self) {
        self.ring = Size::Many;
    }

    /// Sets a variable of its environment, or removes it.
    pub fn set_variable(&mut self, name: OsString, value: Option<OsString>) {
        self.environment.set(name, value);
    }

    /// Lets it inherit no variables, and takes back those that were set.
    pub fn clear_environment(&mut self) {
        self.environment.clear();
    }

    /// Sets its current directory.
    pub fn set_directory(&mut self, directory: PathBuf) {
        self.setup.directory = Some(directory.into_os_string());
    }

    /// Sets where a standard stream of it leads.
    pub fn set_stream(&mut self, stream: Stream, leads: Stdio) {
        self.stdio[stream as usize] = leads;
    }

    /// Ends what it starts itself with it.
    pub fn end_tree(&mut self) {
        self.own_process_group();
        self.setup.grandchildren = Grandchildren::Ended;
    }

    /// Gives it a process group of its own.
    pub fn own_process_group(&mut self) {
        self.group = Group::Own;
    }

    /// Has the kernel hold it to so much.
    pub fn limit(&mut self, limited: Limited, value: u64) {
        self.setup.limits.push((limited, value));
    }

    /// Sets its nice value.
    pub fn set_nice(&mut self, nice: i32) {
        self.setup.nice = Some(nice);
    }

    /// Binds it to these CPUs.
    pub fn set_cpus(&mut self, cpus: Vec<usize>) {
        self.setup.cpus = Some(cpus);
    }

    /// Has it tell, by [`Event::Grown`](crate::child::Event::Grown), that it has taken more memory
    /// than so many bytes since it was up.
    pub fn bound_growth(&mut self, bytes: u64) {
        self.setup.growth = Some(bytes);
    }

    /// Lets panics be told with their backtraces.
    pub fn tell_backtraces(&mut self) {
        self.setup.backtraces = Backtraces::On;
    }

    /// The part of the grace period that finalizers get: the rest is for the call that runs and
    /// for the parent, which must not kill before the child's own deadline.
    pub(crate) fn finalizers(&self) -> Duration {
        self.grace_period * 3 / 5
    }

    /// The longest frame that the child may send: a value, or an error, which may be longer.
    pub(crate) fn frame_limit(&self) -> usize {
        self.limits.max_bytes.max(MAX_FAULT).saturating_add(1024)
    }
}
