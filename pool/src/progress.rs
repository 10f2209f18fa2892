//! The progress of a map, shown by a bar.

#[cfg(feature = "progress")]
pub(crate) use with_bar::Progress;
#[cfg(not(feature = "progress"))]
pub(crate) use without::Progress;

#[cfg(feature = "progress")]
mod with_bar {
    use indicatif::ProgressBar;

    use crate::error::TaskError;
    use crate::mailbox::{Arrival, Outcomes};
    use crate::map::Maps;
    use crate::pool::Pool;

    impl Pool {
        /// Has the maps that are called on the result move this bar: by one for each task that has its
        /// outcome, not as items are taken from the input. What is cancelled before it begins does not
        /// count.
        ///
        /// A bar without a length gets that of the input, if the input knows it, but not from
        /// `imap`, `imap_unordered` and `map_reduce`. The bar is not finished or cleared: it may go
        /// on with another map. It moves as the caller takes outcomes, so that of a lazy map moves
        /// as it is consumed. With `map_reduce` it moves by one for several items that were mapped
        /// and joined together.
        ///
        /// # Examples
        ///
        /// ```
        /// use indicatif::ProgressBar;
        ///
        /// let pool = epilogue_pool::Pool::new(2)?;
        /// let bar = ProgressBar::no_length();
        /// pool.progress(&bar).map(0..1000u64, |x| x * x)?;
        /// assert_eq!((bar.position(), bar.length()), (1000, Some(1000)));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn progress<'pool>(&'pool self, bar: &'pool ProgressBar) -> Maps<'pool> {
            self.maps().progress(bar)
        }
    }

    impl<'pool> Maps<'pool> {
        /// As [`Pool::progress`].
        pub fn progress(mut self, bar: &'pool ProgressBar) -> Self {
            self.progress = Progress { bar: Some(bar) };
            self
        }
    }

    /// The bar that shows a map's progress, if there is one.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Progress<'pool> {
        bar: Option<&'pool ProgressBar>,
    }

    impl Progress<'_> {
        /// Whether somebody watches.
        pub(crate) fn is_shown(self) -> bool {
            self.bar.is_some()
        }

        /// So many tasks there will be, if that is known.
        pub(crate) fn expect(self, (least, most): (usize, Option<usize>)) {
            if let Some(bar) = self.bar
                && bar.length().is_none()
                && most == Some(least)
            {
                bar.set_length(least as u64);
            }
        }

        /// Tasks have their outcomes.
        pub(crate) fn advance(self, arrival: &Arrival) {
            let Some(bar) = self.bar else { return };
            match &arrival.outcomes {
                Outcomes::Failed { error: TaskError::Cancelled { begun: false }, .. } => {}
                _ => bar.inc(arrival.count() as u64),
            }
        }
    }
}

#[cfg(not(feature = "progress"))]
mod without {
    use std::marker::PhantomData;

    use crate::mailbox::Arrival;

    /// Nobody watches.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Progress<'pool>(PhantomData<&'pool ()>);

    impl Progress<'_> {
        pub(crate) fn is_shown(self) -> bool {
            false
        }

        pub(crate) fn expect(self, _: (usize, Option<usize>)) {}

        pub(crate) fn advance(self, _: &Arrival) {}
    }
}
