//! What every builder can set of the children that it starts: written once, for all builders.

/// Gives a builder with a field `spec: Spec` the setters that all builders share.
///
/// The texts after the type say whom they are about, and complete the examples: the crate, the type
/// whose `builder()` it is, and the call that has a function run there.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($builder:ty, of $subject:literal, $krate:literal, $type:literal, $call:literal) => {
        /// The first and the last that happens there.
        impl $builder {
            #[doc = concat!("Sets a function that runs once in ", $subject, ", before anything else.")]
            /// None by default.
            ///
            /// If it panics, or ends the process, that is the error of the start, which says with
            /// what; the finalizers that it had registered by then have run.
            ///
            /// In a pool this holds until a worker is up. One in which it fails later is replaced,
            /// ever later if that goes on; and the pool gives up if meanwhile no other worker
            /// serves, or by `restart_intensity`.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::sync::OnceLock;
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            /// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
            ///
            #[doc = concat!("let builder = ", $type, "::builder().initializer(|| {")]
            ///     WORDS.get_or_init(|| vec!["read".to_owned(), "once".to_owned()]);
            /// });
            #[doc = concat!("let count = builder", $call, "((), |()| WORDS.get().map(Vec::len))?.join()?;")]
            /// assert_eq!(count, Some(2));
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn initializer(mut self, initializer: fn()) -> Self {
                self.spec.initializer = Some(initializer);
                self
            }

            #[doc = concat!("Sets a function that runs once in ", $subject, " as it ends, however that")]
            /// comes about, short of a kill. None by default.
            ///
            /// It is registered, by the name `finalizer`, when the initializer has returned. So it
            /// runs after all finalizers that are registered later, and before those of the
            /// initializer. If the initializer fails it does not run: what was not set up is not
            /// taken down.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            #[doc = concat!("let builder = ", $type, "::builder().finalizer(|| println!(\"so long\"));")]
            #[doc = concat!("assert_eq!(builder", $call, "(2u64, |x| x + 1)?.join()?, 3);")]
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn finalizer(mut self, finalizer: fn()) -> Self {
                self.spec.finalizer = Some(finalizer);
                self
            }
        }

        /// How it begins and ends, and what may be sent.
        impl $builder {
            #[doc = concat!("Sets how long ", $subject, " has to start. Ten seconds by default.")]
            pub fn start_deadline(mut self, start_deadline: ::std::time::Duration) -> Self {
                self.spec.start_deadline = start_deadline.min($crate::child::Spec::LONGEST);
                self
            }

            /// Sets what may be sent either way: sizes in bytes, depths of nesting.
            pub fn limits(mut self, limits: $crate::Limits) -> Self {
                self.spec.limits = limits;
                self
            }

            #[doc = concat!("Sets how ", $subject, " begins. `StartMethod::Spawn` by default.")]
            pub fn start_method(mut self, start_method: $crate::StartMethod) -> Self {
                self.spec.start_method = start_method;
                self
            }

            /// Has `load` called once in the start server, before its first fork: what it leaves in
            /// memory, in a static, all children of that server share copy on write. Implies
            /// `StartMethod::Server`.
            ///
            /// It runs in the server, not here, at the first start with it, which takes as long as
            /// it does and may have to set `start_deadline` for that. If it panics, or leaves
            /// threads or descriptors behind, that start fails.
            ///
            /// # Examples
            ///
            /// ```
            /// use std::sync::OnceLock;
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            /// static MODEL: OnceLock<Vec<u64>> = OnceLock::new();
            ///
            /// fn load() {
            ///     MODEL.get_or_init(|| (0..1000).map(|n| n * n).collect());
            /// }
            ///
            #[doc = concat!("let builder = ", $type, "::builder().preload(load);")]
            #[doc = concat!("let square = builder", $call, "(9usize, |n| MODEL.get()?.get(n).copied())?.join()?;")]
            /// assert_eq!(square, Some(81));
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn preload(mut self, load: fn()) -> Self {
                self.spec.preload = Some(load);
                self.spec.start_method = $crate::StartMethod::Server;
                self
            }

            /// Lets panics be told with their backtraces. Off by default: resolving one takes about
            /// a tenth of a second.
            pub fn backtrace(mut self) -> Self {
                self.spec.tell_backtraces();
                self
            }
        }

        #[doc = concat!("What ", $subject, " finds around it.")]
        impl $builder {
            #[doc = concat!("Sets a variable of the environment of ", $subject, ". It inherits all of ours by")]
            /// default, as they are at the start.
            ///
            /// A name that is empty or holds `=`, and a zero byte in name or value, are an error at
            /// the start: `StartError::BadVariable`.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            #[doc = concat!("let builder = ", $type, "::builder().env(\"TZ\", \"UTC\");")]
            #[doc = concat!("let zone = builder", $call, "((), |()| std::env::var(\"TZ\").ok())?.join()?;")]
            /// assert_eq!(zone.as_deref(), Some("UTC"));
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn env(
                mut self,
                name: impl Into<::std::ffi::OsString>,
                value: impl Into<::std::ffi::OsString>,
            ) -> Self {
                self.spec.set_variable(name.into(), Some(value.into()));
                self
            }

            #[doc = concat!("Removes a variable from the environment of ", $subject, ".")]
            pub fn env_remove(mut self, name: impl Into<::std::ffi::OsString>) -> Self {
                self.spec.set_variable(name.into(), None);
                self
            }

            #[doc = concat!("Lets ", $subject, " inherit no variables, and takes back those that were set so far.")]
            ///
            /// What names the file for coverage data (`LLVM_PROFILE_FILE`) is kept, or the data would
            /// be lost. To leave it out of the measurement, set that to `/dev/null` after this:
            /// removed, it would mean a file in the current directory.
            pub fn env_clear(mut self) -> Self {
                self.spec.clear_environment();
                self
            }

            #[doc = concat!("Sets the current directory of ", $subject, ". Ours by default.")]
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            #[doc = concat!("let builder = ", $type, "::builder().current_dir(\"/\");")]
            #[doc = concat!("let seen = builder", $call, "((), |()| std::env::current_dir().ok())?.join()?;")]
            /// assert_eq!(seen, Some("/".into()));
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn current_dir(mut self, directory: impl Into<::std::path::PathBuf>) -> Self {
                self.spec.set_directory(directory.into());
                self
            }

            #[doc = concat!("Sets the standard output of ", $subject, ". `Stdio::Inherit` by default.")]
            ///
            /// `Process::join_output` gives back what was captured. A pool has nothing like it:
            /// what its workers wrote is lost then.
            pub fn stdout(mut self, stdout: impl Into<$crate::Stdio>) -> Self {
                self.spec.set_stream($crate::child::Stream::Output, stdout.into());
                self
            }

            #[doc = concat!("Sets the standard error of ", $subject, ". `Stdio::Inherit` by default.")]
            ///
            /// `Process::join_output` gives back what was captured. A pool has nothing like it:
            /// what its workers wrote is lost then.
            pub fn stderr(mut self, stderr: impl Into<$crate::Stdio>) -> Self {
                self.spec.set_stream($crate::child::Stream::Errors, stderr.into());
                self
            }

            #[doc = concat!("Ends what ", $subject, " starts itself (by `Command`, say) with it. It is the user's by")]
            /// default, and may outlive it.
            ///
            /// The process does that itself, after its finalizers: it sends what is left `SIGTERM`,
            /// and kills what has not ended after two fifths of the grace period, or, if it was
            /// told to stop, after two thirds of the time that it has left. So nothing has to be
            /// done by this program, which may be killed meanwhile. If this program is gone
            /// already, the process begins with it at the latest when three quarters of its
            /// finalizers' time are over, whether or not these have returned, and can start nothing
            /// more from then on (`EAGAIN`).
            ///
            /// If the process was killed, has crashed or could not look for what it had started,
            /// this program does it, with the grace period between the two signals. Only if both
            /// are killed, this program before it has looked, does something run on. Until all of
            /// that is over, the process counts as running.
            ///
            /// A cgroup tells who belongs to it, where this program may make one; else a process
            /// group, which a grandchild can leave. `End::tree` says which it was, and how many run
            /// on because this program may not kill them: after `sudo`, say.
            pub fn end_tree(mut self) -> Self {
                self.spec.end_tree();
                self
            }

            #[doc = concat!("Gives ", $subject, " a process group of its own. It is in ours by default.")]
            ///
            /// The terminal's signals then do not reach it, nor what it starts. But the terminal
            /// stops it when it reads there, and does not stop it with us on Ctrl-Z.
            pub fn own_process_group(mut self) -> Self {
                self.spec.own_process_group();
                self
            }
        }

        #[doc = concat!("What the kernel holds ", $subject, " to. Each is unlimited by default, or as this process is.")]
        impl $builder {
            /// Limits the address space, in bytes. Beyond it an allocation fails, which aborts.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            #[doc = concat!("let builder = ", $type, "::builder().limit_memory(256 << 20).limit_core(0);")]
            #[doc = concat!("let refused = builder", $call, "((), |()| {")]
            ///     Vec::<u8>::new().try_reserve_exact(1 << 30).is_err()
            /// })?.join()?;
            /// assert!(refused);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn limit_memory(mut self, bytes: u64) -> Self {
                self.spec.limit($crate::child::Limited::Memory, bytes);
                self
            }

            /// Limits the CPU time, in seconds. Beyond it the process is killed.
            pub fn limit_cpu(mut self, seconds: u64) -> Self {
                self.spec.limit($crate::child::Limited::Cpu, seconds);
                self
            }

            /// Limits the number of open descriptors; fewer than 4 are an error at the start. Five
            /// are open when its function begins: 0, 1, 2, its connection to this process, and one
            /// by which it watches this process. A worker of a pool has one more.
            pub fn limit_descriptors(mut self, descriptors: u64) -> Self {
                self.spec.limit($crate::child::Limited::Descriptors, descriptors);
                self
            }

            /// Limits the size of files that it writes, in bytes. Beyond it, it is killed by
            /// `SIGXFSZ`.
            pub fn limit_file_size(mut self, bytes: u64) -> Self {
                self.spec.limit($crate::child::Limited::FileSize, bytes);
                self
            }

            /// Limits the size of the core file that the kernel writes if it crashes, in bytes.
            pub fn limit_core(mut self, bytes: u64) -> Self {
                self.spec.limit($crate::child::Limited::Core, bytes);
                self
            }

            /// Sets the nice value: from -20, favoured, to 19. Below ours it takes privileges.
            pub fn nice(mut self, nice: i32) -> Self {
                self.spec.set_nice(nice);
                self
            }

            #[doc = concat!("Binds ", $subject, " to these CPUs, by the kernel's numbers. One that there is not, or none")]
            /// at all, is an error at the start.
            pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
                self.spec.set_cpus(cpus.into_iter().collect());
                self
            }

            #[doc = concat!("Has ", $subject, " give up what it does not need, before any code of yours runs in it:")]
            /// the initializer and what it ends with included. None by default. Limits are set
            /// before.
            ///
            /// `End::sandbox` says how much of it the kernel enforced.
            ///
            /// # Examples
            ///
            /// ```
            /// use epilogue_process::Sandbox;
            #[doc = concat!("use ", $krate, "::", $type, ";")]
            ///
            #[doc = concat!("let builder = ", $type, "::builder().sandbox(Sandbox::new().required());")]
            #[doc = concat!("assert_eq!(builder", $call, "(6, |n| n * 7)?.join()?, 42);")]
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn sandbox(mut self, sandbox: $crate::Sandbox) -> Self {
                self.spec.sandbox = Some(sandbox);
                self
            }
        }
    };
}
