//! Slices in memory that several processes share: written once, then read by all without a copy.
//!
//! A slice lies in a file that has no name, only a descriptor, and is gone with the last process
//! that holds it, however that ends: nothing is left in `/dev/shm`. What travels is the
//! descriptor.
//!
//! # Invariants
//!
//! 1. A slice's memory never changes and never shrinks: its file is sealed, and no process can
//!    take a seal back. Whoever receives one looks at the seals, the file system, the length and
//!    the alignment before it hands out a reference.
//! 2. All of the memory is there from the start: reading a slice neither claims memory nor ends a
//!    process by a signal because there is none left.
//! 3. A slice that does not travel to another process refuses to be serialized.

mod buf;
mod held;
mod recent;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

pub use buf::SharedBuf;
pub(crate) use held::Hold;

use crate::parcel::{attach, attached};
use crate::sys::mapping::Frozen;

/// A slice in memory that other processes can read too, without a copy.
///
/// It travels like any other value, at any depth: as an argument, in a result, in a message of a
/// channel. Its elements do not travel with it. Cloning it, or taking a [part](SharedSlice::slice)
/// of it, copies nothing either.
///
/// It holds a descriptor for as long as it lives, so a process can have about as many different
/// ones as it may have open files. Parts and clones share theirs, and where they arrive together, the
/// memory is mapped once.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, SharedSlice};
///
/// let numbers = SharedSlice::copy_from(&[1u64, 2, 3])?;
/// let sum = Process::start(numbers.clone(), |numbers| numbers.iter().sum::<u64>())?;
/// assert_eq!(sum.join()?, numbers.iter().sum());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A function can make one in its own process, and return it:
///
/// ```
/// use epilogue_process::{Process, SharedBuf, SharedSlice};
///
/// fn squares(n: usize) -> SharedSlice<u64> {
///     let mut squares = SharedBuf::with_len(n).expect("memory for the squares");
///     squares.iter_mut().zip(0..).for_each(|(square, i)| *square = i * i);
///     squares.freeze().expect("a file that can be sealed")
/// }
///
/// assert_eq!(Process::start(1000, squares)?.join()?[999], 998_001);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedSlice<T> {
    /// None for an empty slice, which needs none.
    memory: Option<Arc<Memory>>,
    /// Where the slice begins in the memory, in bytes.
    start: usize,
    len: usize,
    element: PhantomData<T>,
}

#[derive(Debug)]
struct Memory {
    mapping: Frozen,
    file: Arc<OwnedFd>,
}

impl<T: Pod> SharedSlice<T> {
    /// Copies a slice into memory that can be shared. That is the only copy: [`SharedBuf`] does
    /// without.
    ///
    /// # Errors
    ///
    /// If there is not enough memory, or no descriptor left.
    pub fn copy_from(slice: &[T]) -> io::Result<Self> {
        let mut buf = SharedBuf::with_len(slice.len())?;
        buf.copy_from_slice(slice);
        buf.freeze()
    }

    /// A part of the slice, in the same memory.
    ///
    /// # Panics
    ///
    /// If the range ends before it begins, or beyond the slice.
    ///
    /// # Examples
    ///
    /// ```
    /// let numbers = epilogue_process::SharedSlice::copy_from(&[1u8, 2, 3, 4])?;
    /// assert_eq!(*numbers.slice(1..3), [2, 3]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        // The slice itself panics in the words that everybody knows.
        let len = self[start..end].len();
        Self {
            memory: self.memory.clone().filter(|_| len > 0),
            // An empty part is nowhere.
            start: if len > 0 { self.start + start * size_of::<T>() } else { 0 },
            len,
            element: PhantomData,
        }
    }

    /// The slice in parts of `len` elements, the last of them shorter if need be: one task each,
    /// for example.
    ///
    /// # Panics
    ///
    /// If `len` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// let numbers = epilogue_process::SharedSlice::copy_from(&[1u64, 2, 3, 4, 5])?;
    /// let parts: Vec<_> = numbers.parts(2).collect();
    /// assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 2, 1]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn parts(&self, len: usize) -> impl ExactSizeIterator<Item = Self> + use<T> {
        assert!(len > 0, "parts of no elements would never end");
        let whole = self.clone();
        (0..self.len.div_ceil(len)).map(move |part| {
            let start = part * len;
            whole.slice(start..(start + len).min(whole.len))
        })
    }

    /// Adopts a file that has been frozen; `bytes` is where the slice lies in it.
    fn adopt(file: Arc<OwnedFd>, bytes: Range<usize>, len: usize) -> io::Result<Self> {
        let is_enough = |memory: &Arc<Memory>| memory.mapping.bytes().len() >= bytes.end;
        let memory = match recent::find(&file).filter(is_enough) {
            Some(memory) => memory,
            None => {
                let memory = Arc::new(Memory { mapping: Frozen::map(&file, bytes.end)?, file });
                recent::remember(&memory);
                memory
            }
        };
        Ok(Self { memory: Some(memory), start: bytes.start, len, element: PhantomData })
    }

    fn empty() -> Self {
        Self { memory: None, start: 0, len: 0, element: PhantomData }
    }
}

impl<T> Drop for SharedSlice<T> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            held::let_go(memory);
        }
    }
}

impl<T: Pod> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self.memory.as_deref() {
            Some(memory) => {
                let bytes = memory.mapping.bytes();
                bytemuck::cast_slice(&bytes[self.start..][..self.len * size_of::<T>()])
            }
            None => &[],
        }
    }
}

/// What can be in a slice. Refused by the compiler: elements without a size, of which there could
/// be any number, and those that are aligned to more than a page.
struct Element<T>(PhantomData<T>);

impl<T: Pod> Element<T> {
    const SIZE: usize = {
        assert!(size_of::<T>() > 0, "an element of a shared slice has a size");
        assert!(align_of::<T>() <= 4096, "memory is aligned to pages, not more");
        size_of::<T>()
    };
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        let Self { start, len, .. } = *self;
        Self { memory: self.memory.clone(), start, len, element: PhantomData }
    }
}

impl<T: Pod> AsRef<[T]> for SharedSlice<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<'a, T: Pod> IntoIterator for &'a SharedSlice<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Pod + PartialEq> PartialEq for SharedSlice<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for SharedSlice<T> {}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What of a slice is written down: the number of its descriptor, the first byte, the length.
#[derive(Serialize, Deserialize)]
struct Place {
    file: Option<u32>,
    start: u64,
    len: u64,
}

impl<T: Pod> Serialize for SharedSlice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.memory.as_ref().map(|memory| attach(&memory.file));
        let file = file.transpose().map_err(ser::Error::custom)?;
        Place { file, start: self.start as u64, len: self.len as u64 }.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Place { file, start, len } = Place::deserialize(deserializer)?;
        // Whatever these numbers are, they name bytes of a file that is there, or nothing.
        let impossible = || de::Error::custom("a shared slice of an impossible size");
        let (start, len) =
            usize::try_from(start).ok().zip(usize::try_from(len).ok()).ok_or_else(impossible)?;
        let size = len.checked_mul(Element::<T>::SIZE).ok_or_else(impossible)?;
        let end = start.checked_add(size).ok_or_else(impossible)?;
        if len == 0 {
            return Ok(Self::empty());
        }
        if start % align_of::<T>() != 0 {
            return Err(de::Error::custom("a shared slice that is not aligned"));
        }
        let file = attached(file.ok_or_else(impossible)?).map_err(de::Error::custom)?;
        Self::adopt(file, start..end, len)
            .map_err(|error| de::Error::custom(format_args!("a shared slice: {error}")))
    }
}
