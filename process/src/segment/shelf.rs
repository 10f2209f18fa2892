//! The segments of another process that are kept mapped, by their numbers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Extent, SLOTS};
use crate::ring::Deposit;
use crate::sys::segment::Window;

/// The segments of another process.
#[derive(Debug)]
pub(crate) struct Shelf([Option<Arc<Window>>; SLOTS]);

/// A part of another process's segment. As it is dropped, its maker is told, if it asked for that.
#[derive(Debug)]
pub(crate) struct View {
    window: Arc<Window>,
    len: usize,
    /// Given back by being dropped.
    _deposit: Option<Deposit>,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Its maker could take it away, or there is less than it said.
    #[error("it is not what its maker says")]
    Corrupt,
    /// Something is wrong here, not there.
    #[error("{0}")]
    Here(String),
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Self([const { None }; SLOTS])
    }

    /// Takes in a segment that came with this descriptor; none if it was lost on the way.
    pub(crate) fn admit(
        &mut self,
        extent: Extent,
        file: Option<&OwnedFd>,
    ) -> Result<Arc<Window>, Unusable> {
        for (slot, window) in self.0.iter_mut().enumerate() {
            if extent.live & (1 << slot) == 0 {
                *window = None;
            }
        }
        let kept = self.0.get_mut(extent.slot as usize);
        let opened = open(extent, file);
        if let Some(kept) = kept {
            // What was there under this number is gone, whatever comes in its place.
            *kept = opened.as_ref().ok().cloned();
        }
        opened
    }

    /// The segment of that number.
    pub(crate) fn find(&self, extent: Extent) -> Result<Arc<Window>, Unusable> {
        let window = self.0.get(extent.slot as usize).and_then(Option::as_ref);
        match window {
            Some(window) if extent.len <= window.len() as u64 => Ok(Arc::clone(window)),
            Some(_) => Err(Unusable::Corrupt),
            None => Err(Unusable::Here("it could not be mapped".to_owned())),
        }
    }
}

fn open(extent: Extent, file: Option<&OwnedFd>) -> Result<Arc<Window>, Unusable> {
    let Some(file) = file else {
        let why = "no descriptor is left for it: raise the limit on open files";
        return Err(Unusable::Here(why.to_owned()));
    };
    match Window::open(file) {
        Ok(window) if extent.len <= window.len() as u64 => Ok(Arc::new(window)),
        Ok(_) => Err(Unusable::Corrupt),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Unusable::Corrupt),
        Err(error) => Err(Unusable::Here(error.to_string())),
    }
}

impl View {
    /// So much of it as the extent says, which was compared with its length.
    pub(crate) fn new(window: Arc<Window>, extent: Extent, deposit: Option<Deposit>) -> Self {
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX).min(window.len());
        Self { window, len, _deposit: deposit }
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
