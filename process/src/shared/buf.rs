//! A slice while it is being filled.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytemuck::Pod;

use super::{Element, SharedSlice};
use crate::sys::mapping::{self, Draft};

/// A slice that will be shared, while it is being filled in place.
///
/// # Examples
///
/// ```
/// use epilogue_process::SharedBuf;
///
/// let mut buf = SharedBuf::with_len(3)?;
/// buf.copy_from_slice(&[1.5, 2.5, 3.5]);
/// let slice = buf.freeze()?;
/// assert_eq!(*slice, [1.5, 2.5, 3.5]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SharedBuf<T> {
    /// None where there is not a single byte.
    memory: Option<(Draft, OwnedFd)>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> SharedBuf<T> {
    /// Makes a buffer of `len` elements, all of them zero.
    ///
    /// # Errors
    ///
    /// If there is not enough memory for it, or no descriptor left.
    pub fn with_len(len: usize) -> io::Result<Self> {
        let size = len.checked_mul(Element::<T>::SIZE).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = match size {
            0 => None,
            size => {
                let file = mapping::create(size)?;
                Some((Draft::map(&file, size)?, file))
            }
        };
        Ok(Self { memory, len, element: PhantomData })
    }

    /// Seals the buffer: from now on nobody can change it, this process included.
    ///
    /// # Errors
    ///
    /// If other code of this program has found the file and mapped it for writing, or has the kernel
    /// hold on to its pages for more than a second.
    pub fn freeze(self) -> io::Result<SharedSlice<T>> {
        let Some((draft, file)) = self.memory else {
            return Ok(SharedSlice::empty());
        };
        // A mapping that can be written to stands in the way of the seal.
        drop(draft);
        mapping::freeze(&file)?;
        SharedSlice::adopt(Arc::new(file), 0..self.len * size_of::<T>(), self.len)
    }
}

impl<T: Pod> Deref for SharedBuf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.memory {
            Some((draft, _)) => bytemuck::cast_slice(draft.bytes()),
            None => &[],
        }
    }
}

impl<T: Pod> DerefMut for SharedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.memory {
            Some((draft, _)) => bytemuck::cast_slice_mut(draft.bytes_mut()),
            None => &mut [],
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
